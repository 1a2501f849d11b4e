"""Exercises: a student's file is run apart from the grader, judged here, and told which mistake it makes."""
