"""What is built from the sources: what is in it, and that it works alone."""

import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile

import pytest
import yaml
from packaging.requirements import Requirement

import psi_optax
from tests.address import repository
from tests.oldest import oldest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAME = f"psi_optax-{psi_optax.__version__}"


def run(*command, **options):
    """What a command prints; its output is in the error if it fails."""
    done = subprocess.run(
        command,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    options = "--no-isolation", "--outdir", str(folder)
    run(sys.executable, "-m", "build", *options, str(ROOT))
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    [path] = built.glob("*.whl")
    return path


def sources():
    """The files of the package."""
    files = (ROOT / "psi_optax").rglob("*")
    names = {path.relative_to(ROOT).as_posix() for path in files}
    return {x for x in names if x.endswith((".py", "py.typed"))}


def test_the_wheel_has_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    package = {x for x in names if not x.startswith(f"{NAME}.dist-info/")}
    assert package == sources()
    assert len(package) > 60
    assert f"{NAME}.dist-info/licenses/LICENSE" in names


def test_the_wheel_says_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"{NAME}.dist-info/METADATA").decode()
    needed = re.findall(r"^Requires-Dist: (.*)$", text, re.MULTILINE)
    always = {re.split("[<>=]", x)[0] for x in needed if "extra" not in x}
    assert always == {"jax", "jaxlib", "optax"}
    assert "\nVersion: " + psi_optax.__version__ + "\n" in text


def test_the_source_distribution_has_what_tests_it(built):
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {x.partition("/")[2] for x in archive.getnames()}
    assert names >= sources()
    assert names >= {"README.md", "LICENSE", "Makefile", "pyproject.toml"}
    assert names >= {"tests/registry.py", "docs/index.md", "CONTRIBUTING.md"}
    assert "CITATION.cff" in names
    assert not any(x.startswith((".venv", "build/", "dist/")) for x in names)


def test_there_is_one_version():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert not re.search(r'^version\s*=\s*"', text, re.MULTILINE)
    assert importlib.metadata.version("psi_optax") == psi_optax.__version__


def test_the_address_stands_in_one_place():
    """In notebooks too, which are compared with it."""
    name = repository().removeprefix("https://github.com/")
    pages = ROOT.glob("*.md"), (ROOT / "docs").rglob("*.md"), sources()
    texts = [*pages[0], *pages[1], *(ROOT / x for x in pages[2])]
    texts += [*(ROOT / "docs").rglob("*.py"), ROOT / "Makefile"]
    assert not [x for x in texts if name in x.read_text(encoding="utf-8")]
    assert name in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_citation_is_that_of_the_project():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["authors"] == project["authors"]
    assert cited["license"] == project["license"]
    assert cited["repository-code"] == repository()
    name, _, title = cited["title"].partition(": ")
    assert name == project["name"]
    assert project["description"].startswith(title)
    # What the format requires beside these.
    assert cited["cff-version"] == "1.2.0"
    assert cited["message"]


def floors():
    """The oldest version of each requirement that `make oldest` installs."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    return project, dict(x.split("==") for x in oldest(project))


def test_the_oldest_version_of_each_requirement_is_tested():
    project, installed = floors()
    extras = project["optional-dependencies"].values()
    asked = [Requirement(x) for x in sum(extras, project["dependencies"])]
    asked = {x.name: str(x.specifier) for x in asked if x.name != "psi_optax"}
    assert asked == {name: f">={low}" for name, low in installed.items()}
    assert installed["jax"] == installed["jaxlib"]


@pytest.mark.parametrize("page", ["limits", "testing"])
def test_pages_name_the_oldest_jax(page):
    _, installed = floors()
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert f"JAX {installed['jax']}" in text


def needed(name, extras=("",), found=None):
    """The installed distributions that one asks for, and those that they do."""
    found = {} if found is None else found
    for text in importlib.metadata.requires(name) or ():
        asked = Requirement(text)
        is_meant = asked.marker is None or any(
            asked.marker.evaluate({"extra": extra}) for extra in extras
        )
        if is_meant and asked.name not in found:
            found[asked.name] = importlib.metadata.distribution(asked.name)
            needed(asked.name, ("", *asked.extras), found)
    return found


def link(distribution, folder):
    """Link what a distribution has installed into another environment."""
    for name in {path.parts[0] for path in distribution.files} - {"..", "bin"}:
        target = pathlib.Path(distribution.locate_file(name))
        if not (folder / name).exists() and name != "__pycache__":
            (folder / name).symlink_to(target)


def test_the_examples_of_the_readme_run_where_nothing_else_is(wheel, tmp_path):
    """Of all that is installed, what the wheel asks for is linked."""
    venv.create(tmp_path / "empty", symlinks=True)
    python = tmp_path / "empty" / "bin" / "python"
    pip = sys.executable, "-m", "pip", "--quiet", "--python", str(python)
    run(*pip, "install", "--no-compile", "--no-deps", str(wheel))
    [folder] = (tmp_path / "empty").glob("lib/python*/site-packages")
    for distribution in needed("psi_optax", ("", "flax")).values():
        link(distribution, folder)
    run(*pip, "check")
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    examples = "".join(f"exec({block!r}, {{}})\n" for block in blocks)
    code = f"import psi_optax\nprint(psi_optax.__file__)\n{examples}"
    # Isolated: neither the folder nor the environment of the tests is seen.
    out = run(python, "-I", "-W", "error", "-c", code, cwd=tmp_path)
    assert pathlib.Path(out.splitlines()[0]).is_relative_to(tmp_path)
    with pytest.raises(AssertionError, match="No module named 'matplotlib'"):
        run(python, "-I", "-c", "import matplotlib")
