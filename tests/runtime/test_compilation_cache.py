"""Compiled programs on disk: the next process reads them. They are never another user's, and never a reason to fail."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.paths import ROOT

# Compiles two programs with the cache, and prints the folder, their results, and how many were read and written.
PROGRAM = """
import jax
from jax import monitoring
events = []
monitoring.register_event_listener(lambda name, **_: events.append(name.removeprefix("/jax/compilation_cache/")))
from sagan_jax.runtime.compilation_cache import enable_compilation_cache
print(enable_compilation_cache())
{between}
def first(x):
    return 2 * x + 1
def second(x):
    return x - 7
print(jax.jit(first)(3.0), jax.jit(second)(2.5))
print(events.count("cache_hits"), events.count("cache_misses"))
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home"


def environment(home, **more):
    """A user's environment, without what the tests set for themselves."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(home), "JAX_PLATFORMS": "cpu", **more}


def begin(home, between="", **more):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(between=between)],
        env=environment(home, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Returns the folder, how many programs were read and written, and the lines on stderr. Checks the results."""
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    folder, results, counts = printed.splitlines()
    assert results == "7.0 -4.5"
    return folder, tuple(map(int, counts.split())), errors.splitlines()


def compiled(home, **more):
    return finish(begin(home, **more))


def test_second_process_compiles_nothing_and_the_folders_are_the_users_alone(home):
    folder, (read, written), errors = compiled(home)
    assert (read, errors) == (0, [])
    assert written >= 2
    assert Path(folder).parent == home / ".cache" / "sagan_jax" / "compiled"
    for path in (Path(folder), *Path(folder).parents[:3]):
        assert path.stat().st_mode & 0o777 == 0o700, path
    assert compiled(home) == (folder, (written, 0), [])


@pytest.mark.parametrize(
    "settings",
    [
        {"JAX_COMPILATION_CACHE_DIR": ""},
        {"JAX_ENABLE_COMPILATION_CACHE": "0"},
        {"JAX_COMPILATION_CACHE_MAX_SIZE": "0"},
        {"SAGAN_JAX_CACHE": ""},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_cache_is_off_where_the_environment_says_so(settings, home):
    assert compiled(home, **settings) == ("None", (0, 0), [])
    assert not any(home.iterdir())


def test_folder_that_jax_is_given_is_the_one_that_is_used(home, tmp_path):
    settings = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "mine"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    folder, (_, written), _ = compiled(home, **settings)
    assert folder == "None"
    assert written == len([*(tmp_path / "mine").glob("*-cache")]) >= 2
    assert not any(home.iterdir())


@pytest.mark.slow
@pytest.mark.one_jax
def test_package_that_is_imported_does_not_switch_the_cache_on(home):
    program = "import jax, sagan_jax; sagan_jax.train; sagan_jax.load_run; print(jax.config.jax_compilation_cache_dir)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(home), capture_output=True, text=True, check=True
    )
    assert done.stdout == "None\n"


def open_to_others(base):
    base.mkdir(mode=0o700)
    (base / "compiled").mkdir()
    (base / "compiled").chmod(0o777)
    return "others may write into", base / "compiled"


def below_a_folder_open_to_others(base):
    base.mkdir()
    base.chmod(0o777)
    return "others may write into", base


def link_to_a_folder_open_to_others(base):
    base.mkdir(mode=0o700)
    other = base.with_name("other")
    other.mkdir()
    other.chmod(0o777)
    (base / "compiled").symlink_to(other)
    return "others may write into", other


def of_another_user(base):
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    base.mkdir(mode=0o700)
    (base / "compiled").mkdir(mode=0o700)
    os.chown(base / "compiled", 12345, 12345)
    return "belongs to another user", base / "compiled"


def below_a_folder_of_another_user(base):
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    base.mkdir(mode=0o755)
    os.chown(base, 12345, 12345)
    return "belongs to another user", base


def not_a_folder(base):
    base.write_text("")
    return "Not a directory", base


@pytest.mark.parametrize(
    "place",
    [
        open_to_others,
        below_a_folder_open_to_others,
        link_to_a_folder_open_to_others,
        of_another_user,
        below_a_folder_of_another_user,
        not_a_folder,
    ],
)
def test_folder_that_is_not_the_users_alone_is_not_used_and_that_is_said_once(place, home, tmp_path):
    reason, named = place(tmp_path / "base")
    there = sorted(tmp_path.rglob("*"))
    folder, counts, errors = compiled(home, SAGAN_JAX_CACHE=str(tmp_path / "base"))
    assert (folder, counts, len(errors)) == ("None", (0, 0), 1), errors
    assert reason in errors[0]
    assert str(named) in errors[0]
    assert sorted(tmp_path.rglob("*")) == there  # nothing was created either


@pytest.mark.slow
@pytest.mark.one_jax
def test_sticky_folder_of_root_is_no_danger_to_a_folder_below_it(home, tmp_path):
    if tmp_path.stat().st_uid != os.geteuid():
        pytest.skip("a folder of another user")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)  # as /tmp
    (shared / "mine").mkdir(mode=0o700)
    for name in ("mine", "new"):  # the second one does not exist yet
        folder, _, errors = compiled(home, SAGAN_JAX_CACHE=str(shared / name))
        assert (Path(folder).parent, errors) == (shared / name / "compiled", [])
    assert (shared / "new").stat().st_mode & 0o777 == 0o700


def truncate(folder, age):
    entries = [*Path(folder).glob("*-cache")]
    for path in entries:
        path.write_bytes(path.read_bytes()[:100])
        os.utime(path, (time.time() - age,) * 2)
    return len(entries)


@pytest.mark.slow
@pytest.mark.one_jax
def test_damaged_programs_are_compiled_again_and_mended_and_that_is_said_once(home):
    folder, (_, written), _ = compiled(home)
    assert truncate(folder, age=3600) == written
    same, counts, errors = compiled(home)
    assert (same, counts, len(errors)) == (folder, (0, written), 1), errors
    assert "cannot be read" in errors[0]
    assert "compiled again" in errors[0]
    assert compiled(home) == (folder, (written, 0), [])


@pytest.mark.slow
@pytest.mark.one_jax
def test_program_that_another_process_is_still_writing_is_compiled_without_a_word(home):
    folder, (_, written), _ = compiled(home)
    truncate(folder, age=0)
    assert compiled(home)[2] == []
    assert len([*Path(folder).glob("*-cache")]) == written


def test_folder_that_is_removed_meanwhile_is_said_once(home):
    removed = "import shutil; jax.jit(lambda x: 5 * x)(1.0); shutil.rmtree(jax.config.jax_compilation_cache_dir)"
    folder, (read, _), errors = compiled(home, between=removed)
    assert (read, len(errors)) == (0, 1), errors
    assert f"no longer stored in '{folder}'" in errors[0]


@pytest.mark.slow
@pytest.mark.one_jax
def test_disk_that_fills_while_programs_are_written_is_said_once_and_leaves_no_part_of_them(home):
    limit = "import signal, resource; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    folder, (_, tried), errors = compiled(home, between=limit)
    assert (tried, len(errors)) == (1, 1), errors
    assert "no longer stored" in errors[0]
    assert not [*Path(folder).glob("*-cache")]
    assert compiled(home)[2] == []


def test_cache_is_bounded_by_what_was_not_used_for_longest_and_nothing_else_is_removed(home):
    base = home / ".cache" / "sagan_jax" / "compiled"
    old = base / "jax-0.1-jaxlib-0.1-python-3.0-cpu-0123"
    old.mkdir(parents=True, mode=0o700)
    (base / "thesis.tex").write_bytes(bytes(5000))
    for age in (1, 2, 3):
        (old / f"jit_{age}-cache").write_bytes(bytes(1000))
        os.utime(old / f"jit_{age}-cache", (time.time() - 1000 * age,) * 2)
    compiled(home, JAX_COMPILATION_CACHE_MAX_SIZE="2500")
    assert sorted(path.name for path in old.iterdir()) == ["jit_1-cache", "jit_2-cache"]
    assert (base / "thesis.tex").is_file()


@pytest.mark.slow
@pytest.mark.one_jax
def test_processes_that_start_together_share_the_cache(home):
    processes = [begin(home) for _ in range(3)]
    for process in processes:
        assert finish(process)[2] == []
    assert compiled(home)[1][1] == 0
