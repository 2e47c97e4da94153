"""The user's own code behind a model source: the files that its result depends on, and their import.

A file counts as the user's where it lies neither in the standard library nor among installed packages. Imports are read
from the syntax tree, so that nothing is executed to learn what a network depends on.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType

from eightfold.files import sha256_of_file
from eightfold.versions import installed_version

IMPORTERS = ("import_module", "__import__")
PACKAGE_FOLDERS = frozenset({"site-packages", "dist-packages"})
LONGEST_FILE_NAME = 200  # a longer string in code is no file's name
# Module -> the digests of its files when this process imported it.
_IMPORTED: dict[str, dict[str, str]] = {}


@dataclass
class UserCode:
    """Files of a user's module.

    Attributes:
        modules: name -> file, of the module and of all that it imports from the user's folders.
        data: name as written in that code -> an existing file.
        libraries: top-level names of the installed packages that it imports.
    """

    modules: dict[str, Path] = field(default_factory=dict)
    data: dict[str, Path] = field(default_factory=dict)
    libraries: set[str] = field(default_factory=set)

    @property
    def folder(self) -> Path | None:
        """The folder that the module is imported from; None where it is not the user's."""
        name, path = next(iter(self.modules.items()), ("", None))  # those that it imports come behind it
        return path and path.parents[name.count(".") + (path.stem == "__init__")]

    def digests(self, *, outside: Path | None = None) -> dict[str, str]:
        """Path as an import or the code itself names it -> SHA-256; no files below the folder `outside`."""
        modules = {_as_path(name, path): path for name, path in self.modules.items()}
        files = sorted({**self.data, **modules}.items())
        folder = outside and outside.resolve()
        kept = {name: path for name, path in files if not (folder and path.resolve().is_relative_to(folder))}
        return {name: sha256_of_file(path) for name, path in kept.items()}

    def versions(self) -> dict[str, str]:
        """Installed package -> version, for those that have one."""
        found = {name: _version(name) for name in sorted(self.libraries)}
        return {name: version for name, version in found.items() if version}


def code_of(module: str) -> UserCode:
    """The files and libraries that a module depends on. Empty for a module that is not found: its import raises."""
    importlib.invalidate_caches()
    found, waiting = UserCode(), [module]
    while waiting:
        name = waiting.pop()
        for parent in _with_parents(name):
            if parent not in found.modules:
                waiting += _enter(parent, found)
    return found


def names_in(module: str) -> set[str] | None:
    """The names that a module binds, without running it.

    Returns:
        None: there is no such module. Empty: they cannot be told, as for compiled modules and names made by code.
    """
    importlib.invalidate_caches()
    spec = _spec(module)
    if spec is None:
        return None
    tree = _tree(Path(spec.origin)) if spec.origin and spec.has_location else None
    if tree is None:
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return set() if found & {"*", "globals", "setattr", "__getattr__", "exec"} else found


def import_current(name: str) -> ModuleType:
    """Import a module as its files are now, also where this process imported an earlier state of one of them."""
    code = code_of(name)
    digests = code.digests()
    if _IMPORTED.get(name, digests) != digests:
        for module in code.modules:
            sys.modules.pop(module, None)
    for path in code.modules.values():
        _remove_stale_bytecode(path)
    imported = importlib.import_module(name)
    _IMPORTED[name] = digests
    return imported


def find_modules(folder: str) -> None:
    """Let Python find the user's modules in a folder, behind those of the current one. "" changes nothing."""
    if folder and folder not in sys.path:
        sys.path.append(folder)


def _as_path(module: str, path: Path) -> str:
    stem = module.replace(".", "/")
    return f"{stem}/{path.name}" if path.stem == "__init__" else stem + path.suffix


def _enter(name: str, found: UserCode) -> list[str]:
    """Record a module; returns the names that it may import."""
    spec = _spec(name)
    if spec is None or spec.origin is None:  # absent, an attribute of a module, or a folder without code of its own
        return []
    if not spec.has_location or _is_installed(Path(spec.origin)):
        if name.partition(".")[0] not in sys.stdlib_module_names:
            found.libraries.add(name.partition(".")[0])
        return []
    path = Path(spec.origin)
    found.modules[name] = path
    tree = _tree(path)
    if tree is None:
        return []
    found.data |= _named_files(tree, path.parent)
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    return [*_imports(tree, package), *_dynamic(tree, path, package)]


def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Without importing the packages above, as `importlib.util.find_spec` does for a name with dots."""
    parent, _, last = name.rpartition(".")
    try:
        if not parent:
            return importlib.util.find_spec(name)
        above = _spec(parent)
        if above is None or above.submodule_search_locations is None:
            return None
        return _spec_below(list(above.submodule_search_locations), name, last) if last else None
    except (ImportError, ValueError, AttributeError):  # a module without a spec, such as __main__
        return None


def _spec_below(folders: list[str], name: str, last: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.machinery.PathFinder.find_spec(name, folders)
    except KeyError:  # Python asks the imported parent of a folder without __init__.py for its path
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(Path(folder, last)) for folder in folders if Path(folder, last).is_dir()]
        return spec


@cache
def _installed_folders() -> tuple[Path, ...]:
    paths = [sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [*site.getsitepackages(), site.getusersitepackages()]
    own = Path(__file__).parents[1]
    return (own, *(Path(path).resolve() for path in dict.fromkeys(paths) if path))


def _is_installed(path: Path) -> bool:
    resolved = path.resolve()
    if not PACKAGE_FOLDERS.isdisjoint(resolved.parts):  # of another environment, which a .pth file or PYTHONPATH adds
        return True
    return any(resolved.is_relative_to(folder) for folder in _installed_folders())


def _tree(path: Path) -> ast.Module | None:
    """None for compiled modules and code that does not parse: its import raises."""
    if path.suffix != ".py":
        return None
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return None


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Dotted names that may be modules, of imports anywhere in the code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            yield from (name for name in (base, *(f"{base}.{alias.name}" for alias in node.names)) if base)


def _dynamic(tree: ast.Module, path: Path, package: str) -> Iterator[str]:
    """Modules imported by a call: the one that it names, or all of the folder where the name is computed."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function = call.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if name not in IMPORTERS or not call.args:
            continue
        named = call.args[0]
        if isinstance(named, ast.Constant) and isinstance(named.value, str):
            yield _absolute(named.value, package)
        else:
            yield from _siblings(path, package)


def _siblings(path: Path, package: str) -> Iterator[str]:
    for file in sorted(path.parent.rglob("*.py")):
        if not _is_installed(file):
            parts = file.relative_to(path.parent).with_suffix("").parts
            yield ".".join((*([package] if package else []), *(part for part in parts if part != "__init__")))


def _absolute(name: str, package: str) -> str:
    """A dotted name without leading dots; "" where it leads out of every package."""
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    above = package.split(".")[: len(package.split(".")) - dots + 1] if package else []
    return ".".join([*above, *([name[dots:]] if name[dots:] else [])])


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)] if all(parts) else []


def _named_files(tree: ast.Module, folder: Path) -> dict[str, Path]:
    """The files that strings of the code name: beside it, in the current folder, or in a folder that the code names."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = [text for text in texts if 0 < len(text) <= LONGEST_FILE_NAME and text.isprintable() and text.strip("./ ")]
    roots = [folder, Path()]
    roots += [root / name for root in tuple(roots) for name in names if _is_dir(root / name)]
    return {name: root / name for name in names for root in reversed(roots) if _is_file(root / name)}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no name for a file
        return False


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _version(name: str) -> str | None:
    if version := installed_version(name):
        return version
    distributions: Iterable[str] = importlib.metadata.packages_distributions().get(name, ())
    for distribution in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return None


def _remove_stale_bytecode(path: Path) -> None:
    """Python takes bytecode for current by the source's size and the second of its change, and two states of a file may
    share both."""
    if path.suffix != ".py":
        return
    with contextlib.suppress(OSError, NotImplementedError):
        cached = Path(importlib.util.cache_from_source(str(path)))
        if cached.stat().st_mtime <= path.stat().st_ctime:
            cached.unlink()
