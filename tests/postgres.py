"""A real PostgreSQL for the tests: made by `initdb` without privileges, thrown away afterwards.

Must not know what is kept in it. It listens on a Unix socket in its own folder and on nothing else.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

OPTIONS = "-c listen_addresses= -c fsync=off -c full_page_writes=off -c max_connections=60"


def programs() -> Path:
    """Where the server's programs are; Debian keeps them off the path, one folder a version."""
    on_path = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    return Path(on_path).parent if on_path else folders[-1]


def unprivileged() -> dict[str, Any]:
    """The server refuses to run as root: then it runs as nobody."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Path]:
    """The folder of a running server's socket."""
    # Not below pytest's folder: that one may be closed to nobody, and a socket's path must be short.
    folder, user = Path(tempfile.mkdtemp(prefix="pg-")), unprivileged()
    if user:
        os.chown(folder, user["user"], user["group"])

    def run(program: str, *words: str) -> None:
        with (folder / "log").open("ab") as log:
            command: list[str | Path] = [programs() / program, "-D", folder / "db", *words]
            subprocess.run(command, check=True, stdout=log, stderr=log, **user)

    try:
        run("initdb", "--username=relay", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")
        run("pg_ctl", "start", "-w", "-o", f"-k {folder} {OPTIONS}")
        try:
            yield folder
        finally:
            run("pg_ctl", "stop", "-w", "-m", "immediate")
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres_server: Path) -> str:
    """The URL of an empty database."""
    return fresh_database(postgres_server)


@pytest.fixture
def postgres_control(postgres_server: Path) -> Callable[[str], None]:
    """Do something to the server behind everybody's back, in SQL."""

    def control(statement: str) -> None:
        with connect(postgres_server) as connection:
            connection.execute(statement.encode())

    return control


def connect(server: Path) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(host=str(server), user="relay", dbname="postgres", autocommit=True)


def fresh_database(server: Path) -> str:
    name = f"t{uuid.uuid4().hex}"
    with connect(server) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"postgresql+psycopg://relay@/{name}?host={server}"
