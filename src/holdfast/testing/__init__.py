"""Side room: harnesses that ship with the package, so that every user can run them.

A room may not import this one. The modules are commands; `./dev` names them as verbs.
"""

__all__: list[str] = []
