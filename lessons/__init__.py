"""Lessons: one notebook per chapter, with its exercises beside it."""

if __name__ != "tabrl.lessons":
    raise ImportError(f"the package is imported as {__name__}; tabrl.lessons is expected; write `import tabrl.lessons`")
