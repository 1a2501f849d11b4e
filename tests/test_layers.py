"""Imports only point down, there are no cycles, and `import tabrl` is light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = {
    0: "types errors checks _jit _xp trace output rounding _version",
    1: "threads sweep_kernels ordering linear linear_kernels multigrid graph_kernels "
       "mdp model_checks build files policy chain markov longrun graph branches nonnegative",
    2: "bellman jacobi returns advantages weights losses divergences",
    3: "dp choice sweeps sliding stopping undiscounted durations collapse petsc average average_reward "
       "kernels lp linear_program planning rational "
       "learning_kernels schedules replay batch "
       "reference sample prediction off_policy control gradient ppo trpo decisions on_policy "
       "rollout rollout_gym rollout_kernels optimise policy_gradients actor_critic actor_critic_kernels "
       "td_moments td_limits operators visits importance score_sums gradient_moments advantage_moments "
       "natural surrogate soft companions",
    4: "tokens",
    5: "plots figures experiments cells summary verify grading learners report show cli __main__ lessons",
}  # fmt: skip
WORLDS = "envs"  # stands above L1 and imports nothing between L1 and the surface; the surface may import it
WORLDS_MAY_USE = {0, 1}
TOKEN_TASKS = ("tabrl.envs.token_tasks", {"tabrl.tokens.task", "tabrl.tokens.tree"})  # worlds of another kind
HEAVY = ["torch", "matplotlib", "matplotlib.pyplot", "gymnasium", "numba", "scipy.stats", "rich", "marimo"]
LAYER = {name: layer for layer, names in LAYERS.items() for name in names.split()}
SOURCES = sorted(
    path
    for folder in ("tabrl", "envs", "lessons")
    for path in (ROOT / folder).rglob("*.py")
    if not ({"envs", "lessons"} & set(path.relative_to(ROOT).parts[1:]))
)


def module_of(path: Path) -> str:
    """tabrl/tokens/exact.py -> tabrl.tokens.exact; envs/grid.py -> tabrl.envs.grid."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = parts if parts[0] == "tabrl" else ["tabrl", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


def room(module: str) -> str:
    """The part below tabrl that has a layer: tabrl.tokens.exact -> tokens."""
    return module.removeprefix("tabrl").lstrip(".").split(".")[0]


@cache
def imports(module: str, *, top_level: bool = False) -> frozenset[str]:
    """Modules of the package that `module` imports, at its top level or anywhere."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    nodes = list(at_import(tree)) if top_level else list(ast.walk(tree))
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")
            base = ".".join(up[: len(up) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, [base, node.module]))
            inner = {f"{origin}.{alias.name}" for alias in node.names}
            found |= inner if inner <= set(MODULES) else {origin, *inner}
    return frozenset(found & set(MODULES) - {module})


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: not the insides of functions, not type-checking blocks."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from at_import(node)


def test_every_module_has_a_layer() -> None:
    known = set(LAYER) | {WORLDS, ""}
    unknown = sorted({module for module in MODULES if room(module) not in known})
    assert not unknown, f"give a layer in tests/test_layers.py to: {', '.join(unknown)}"


def test_the_table_is_used() -> None:
    assert {"tabrl.mdp", "tabrl.bellman", "tabrl.errors", "tabrl.chain"} <= set(MODULES)
    assert "tabrl.types" in imports("tabrl.mdp") and "tabrl.mdp" in imports("tabrl.bellman")
    assert "tabrl.build" in imports("tabrl.mdp")
    assert "tabrl.build" not in imports("tabrl.mdp", top_level=True)


def allowed(source: str, target: str) -> bool:
    """Whether one module may import another."""
    here, there = room(source), room(target)
    if here == there or here == "":
        return True  # the package's front page collects names
    if there == "":
        return here == WORLDS or LAYER[here] >= 2  # `from tabrl import MDP`, never inside L0 and L1
    if there == WORLDS:
        return LAYER[here] == 5
    if here == WORLDS:
        return LAYER[there] in WORLDS_MAY_USE or (source == TOKEN_TASKS[0] and target in TOKEN_TASKS[1])
    return LAYER[there] <= LAYER[here]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    homeless = [m for m in (module, *imports(module)) if room(m) not in {*LAYER, WORLDS, ""}]
    assert not homeless, f"give a layer in tests/test_layers.py to: {', '.join(homeless)}"
    up = sorted(target for target in imports(module) if not allowed(module, target))
    assert not up, f"{module} imports {', '.join(up)}, which is not below it"


def test_the_rule_itself() -> None:
    assert allowed("tabrl.mdp", "tabrl.types") and not allowed("tabrl.types", "tabrl.mdp")
    assert allowed("tabrl.dp", "tabrl.bellman") and not allowed("tabrl.bellman", "tabrl.dp")
    assert allowed("tabrl.envs.grid", "tabrl.mdp") and not allowed("tabrl.envs.grid", "tabrl.dp")
    assert allowed("tabrl.envs.token_tasks", "tabrl.tokens.task")
    assert not allowed("tabrl.envs.grid", "tabrl.tokens.task") and not allowed(TOKEN_TASKS[0], "tabrl.tokens.exact")
    assert allowed("tabrl.report", "tabrl.envs") and not allowed("tabrl.dp", "tabrl.envs")
    assert not allowed("tabrl.chain", "tabrl")


def test_no_cycles_at_import() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in sorted(imports(module, top_level=True)):
                visit(target, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())
    assert done == set(MODULES)


def test_only_the_neural_nets_import_torch() -> None:
    users = [
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(a.name.split(".")[0] == "torch" for a in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch")
    ]
    assert all(room(module) == "tokens" and ".nets" in module for module in users)


def loaded_after(statement: str) -> set[str]:
    program = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = loaded_after("import tabrl")
    assert "tabrl.mdp" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("module", sorted(m for m in MODULES if room(m) and LAYER.get(room(m), 9) <= 3))
def test_the_floors_below_load_nothing_heavy(module: str) -> None:
    assert not top_level_roots(module) & set(HEAVY)


def top_level_roots(module: str) -> set[str]:
    """Everything imported at the top level, outside the package too."""
    nodes = list(at_import(ast.parse(MODULES[module].read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
