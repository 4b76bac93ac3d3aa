"""Makes the messages and stubs of sawmill.v1 out of the .proto files of the project."""

import re
from pathlib import Path

from grpc_tools import protoc
from setuptools import setup

HERE = Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "api" / "proto"


def version() -> str:
    """The version of the project, as its workspace says."""
    manifest = (PROTO.parent.parent / "Cargo.toml").read_text()
    found = re.search(r'^version = "(.+)"$', manifest, re.MULTILINE)
    if found is None:
        raise SystemExit("no version in Cargo.toml: build this in a checkout of the project")
    return found[1]


def generate() -> None:
    out = HERE / "sawmill" / "v1"
    out.mkdir(exist_ok=True)
    (out / "__init__.py").write_text('"""The messages and stubs of the package sawmill.v1."""\n')
    files = sorted(str(file.relative_to(PROTO)) for file in PROTO.glob("sawmill/v1/*.proto"))
    options = [f"--{kind}_out={HERE}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{PROTO}", *options, *files]) != 0:
        raise SystemExit("the .proto files can't be compiled")


generate()
setup(version=version())
