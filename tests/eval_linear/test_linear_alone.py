"""The linear classifiers could be a package of their own: of this library they need the collectives alone."""

import ast

from tests.conftest import ROOT


def test_the_solvers_import_only_the_collectives_of_this_library():
    for path in (ROOT / "eval_linear" / "linear").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            ours = {name for name in names if name.split(".")[0] in ("bigbigan", "eval_linear", "benchmarks", "tests")}
            assert ours <= {"bigbigan.distributed"}, f"{path.name} imports {ours}"
            assert not isinstance(node, ast.ImportFrom) or node.level < 2, f"{path.name} imports from outside"
