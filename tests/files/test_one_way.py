"""Nothing in trajcheck opens, reads or writes a file but by trajcheck/files, which says how."""

from __future__ import annotations

import ast
from pathlib import Path

from places import PACKAGE

#: Where files are opened, written, moved and removed.
DOORS = ("files",)
#: What opens a file elsewhere, by module: of the package's own data, of the system, in memory, or of torch by a
#: descriptor; or removes what its folder's holder alone may.
ELSEWHERE = {
    "cli/printing.py": {"open"},  # os.devnull
    "reports/page/frame.py": {"open", "read_text"},  # a picture in memory, the package's own style
    "commands/batch/page.py": {"read_text"},  # the package's own
    "objective/common/preprocessing.py": {"open"},  # a picture in memory
    "runners/own_process.py": {"open"},  # the working folder itself
    "runners/ray_folder.py": {"open", "mkdtemp", "rmtree"},  # a closed folder of this process's own
    "commands/batch/tasks.py": {"TemporaryDirectory"},
}
OPENING = {
    *("open", "fdopen", "read_text", "read_bytes", "write_text", "write_bytes", "fromfile", "tofile", "memmap"),
    *("safe_open", "save_file", "load_file", "mkdtemp", "mkstemp", "TemporaryDirectory", "NamedTemporaryFile"),
    *("rmtree", "makedirs", "walk", "symlink_to", "touch", "copyfile", "copytree", "copy2"),
}
#: Calls of modules whose names others have too.
OF_MODULES = {"np": {"load", "save", "savez"}, "torch": {"load", "save"}, "os": {"rename", "replace", "link", "mkdir"}}


def _opens(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) if name in OPENING - {"walk", "read_text", "read_bytes", "write_bytes"}:
            return name
        case ast.Attribute(value=ast.Name(id=module), attr=name) if name in OF_MODULES.get(module, ()):
            return name
        case ast.Attribute(attr=name) if name in OPENING - {"walk"}:
            return name
        case ast.Attribute(value=ast.Name(id="os"), attr="walk"):
            return "walk"
    return ""


def test_files_are_opened_in_one_room() -> None:
    wrong, seen = [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if Path(name).parts[0] in DOORS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and (found := _opens(node)):
                seen.add((name, found))
                if found not in ELSEWHERE.get(name, ()):
                    wrong.append(f"{name}, line {node.lineno}: {found}")
    assert not wrong, "\n".join(wrong)
    assert seen == {(name, each) for name, known in ELSEWHERE.items() for each in known}, "what is not needed any more"


def test_the_inner_loop_opens_as_the_others_do() -> None:
    source = (PACKAGE / "inner_products" / "kernel.c").read_text()
    assert source.count(" open(") == 1 and "O_NONBLOCK" in source and "S_ISREG" in source
