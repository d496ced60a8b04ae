"""The page's modules as one script, for a page that is one file: a browser loads no module from a disk.

Owns how imports and exports become calls and objects. It reads the few forms of them that the page has, and refuses
others. A bundler would do the same, but it would be the one program that users had to install beside Python.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from app.web.files import slimmed

NAMED_IMPORT = re.compile(r'^import \{([^}]*)\} from "([^"]+)";$', re.MULTILINE)
NAMESPACE_IMPORT = re.compile(r'^import \* as (\w+) from "([^"]+)";$', re.MULTILINE)
DYNAMIC_IMPORT = re.compile(r'\bimport\("([^"]+)"\)')
EXPORT = re.compile(r"^export ((?:async function|function|class|const)\*? ([\w$]+))", re.MULTILINE)
OTHER_FORM = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)
# Modules are made when they are first needed, and once. What a dynamic import makes comes later, as in a browser.
SCRIPT_HEAD = """(() => {
"use strict";
const made = new Map();
const linkedModule = (name) => {
if (!made.has(name)) made.set(name, modules[name]());
return made.get(name);
};
const linkedModuleLater = async (name) => linkedModule(name);
const modules = {
"""
SCRIPT_TAIL = """}};
linkedModule({entry});
}})();
"""


@dataclass(frozen=True)
class LinkedModule:
    """A module's code as a function's body, and the modules that it imports."""

    code: str
    imported: tuple[str, ...]


def link_modules(folder: Path, entry: str) -> str:
    """One script that does what the module `entry` of a folder does, with all that it imports.

    Raises:
        ValueError: a module has an import or export of another form, or cannot stand in a page.
    """
    linked: dict[str, LinkedModule] = {}
    wanted = [entry]
    while wanted:
        name = wanted.pop()
        if name in linked:
            continue
        path = folder / name
        module = link_module(name, slimmed(path, path.stat().st_mtime_ns))
        linked[name] = module
        wanted += module.imported
    parts = [SCRIPT_HEAD]
    for name in sorted(linked):
        parts.append(f'"{name}": () => {{\n{linked[name].code}\n}},\n')
    parts.append(SCRIPT_TAIL.format(entry=f'"{entry}"'))
    script = "".join(parts)
    if "</script" in script or "<!--" in script:
        raise ValueError("a module has a text that would end the page's script")
    return script


def link_module(name: str, source: str) -> LinkedModule:
    """A module of this name, relative to the folder of all, as the body of a function that returns its exports.

    Raises:
        ValueError: it has an import or export of another form.
    """
    imported: list[str] = []

    def resolved(address: str) -> str:
        found = _resolved(name, address)
        imported.append(found)
        return f'"{found}"'

    def names(match: re.Match[str]) -> str:
        return f"const {{{match[1].replace(' as ', ': ')}}} = linkedModule({resolved(match[2])});"

    code = NAMED_IMPORT.sub(names, source)
    code = NAMESPACE_IMPORT.sub(lambda match: f"const {match[1]} = linkedModule({resolved(match[2])});", code)
    code = DYNAMIC_IMPORT.sub(lambda match: f"linkedModuleLater({resolved(match[1])})", code)
    exported = [match[2] for match in EXPORT.finditer(code)]
    code = EXPORT.sub(r"\1", code)
    other = OTHER_FORM.search(code)
    if other is not None:
        raise ValueError(f"{name}: {other[0]!r} is not of a form that can be linked")
    return LinkedModule(f"{code}\nreturn {{ {', '.join(exported)} }};", tuple(imported))


def _resolved(name: str, address: str) -> str:
    """The name of the module that `address` is of, relative to the module `name`."""
    parts: list[str] = []
    for part in (PurePosixPath(name).parent / address).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
