"""The locks that `make` installs hold what pyproject.toml asks for: once, within its ranges, with hashes."""

import re
import sys

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHONS = [version for kind in PROJECT["classifiers"] for version in re.findall(r"Python :: (3\.\d+)$", kind)]


def asked(requirements):
    """Yields what these ask for, and in place of our own extras what those ask for."""
    for requirement in map(Requirement, requirements):
        if requirement.name == "jepa-mpc":
            yield from asked(line for extra in requirement.extras for line in EXTRAS[extra])
        else:
            yield requirement


def locked(lock):
    """Yields the packages of a lock, each with the number of its hashes."""
    for block in re.split(r"\n(?=\S)", (ROOT / "requirements" / lock).read_text()):
        if "==" in block:
            yield Requirement(block.split("\\")[0].strip()), block.count("--hash=sha256:")


def test_every_python_is_tried():
    assert PROJECT["requires-python"] == f">={PYTHONS[0]},<3.{int(PYTHONS[-1][2:]) + 1}"


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", ["dev", "dreamer"])
def test_the_lock_fits_the_ranges(extra, python):
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    packages = [*locked(f"{extra}.txt"), *locked("torch.txt")]
    here = [line for line, _ in packages if not line.marker or line.marker.evaluate(environment)]
    versions = {canonicalize_name(line.name): str(line.specifier).removeprefix("==") for line in here}
    assert len(versions) == len(here), "a package twice"
    needs = list(asked(PROJECT["dependencies"] + EXTRAS[extra]))
    assert len(needs) > 15
    for need in needs:
        if not need.marker or need.marker.evaluate(environment):
            assert versions[canonicalize_name(need.name)] in need.specifier, need


@pytest.mark.parametrize("lock", ["dev.txt", "dreamer.txt"])
def test_everything_but_pytorch_is_locked_by_hash_and_from_no_host(lock):
    packages = list(locked(lock))
    assert len(packages) > 50
    assert all(hashes for _, hashes in packages)
    assert "torch" not in {line.name for line, _ in packages}
    assert "://" not in (ROOT / "requirements" / lock).read_text()
