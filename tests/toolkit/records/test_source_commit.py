"""The commit in records: of trees made by git, clean and changed, and of files that no tree tracks."""

import subprocess

import pytest

from toolkit.records.source_commit import source_commit


def git(folder, *arguments):
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    return subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def source(tmp_path):
    """A committed source file of a package, with a tag, which must not take the commit's place."""
    (tmp_path / "package").mkdir()
    file = tmp_path / "package" / "source.py"
    file.write_text("pass\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "package")
    git(tmp_path, "commit", "-q", "-m", "first")
    git(tmp_path, "tag", "-a", "v1", "-m", "v1")
    return file


@pytest.fixture(autouse=True)
def _fresh():
    source_commit.cache_clear()
    yield
    source_commit.cache_clear()


def test_a_clean_tree_is_its_commit(source):
    commit = source_commit(source)
    assert commit == git(source.parent, "rev-parse", "HEAD")
    assert len(commit) == 40


def test_a_changed_tree_says_so(source):
    source.write_text("changed\n")
    assert source_commit(source) == f"{git(source.parent, 'rev-parse', 'HEAD')}+dirty"


def test_what_is_made_beside_the_source_changes_nothing(source):
    (source.parent / "records.jsonl").write_text("{}\n")
    assert source_commit(source) == git(source.parent, "rev-parse", "HEAD")


def test_a_package_installed_below_somebodys_tree_has_none(source):
    installed = source.parents[1] / "venv" / "source.py"
    installed.parent.mkdir()
    installed.write_text("pass\n")
    assert source_commit(installed) is None


def test_no_tree_and_no_git_have_none(source, tmp_path_factory, monkeypatch):
    file = tmp_path_factory.mktemp("installed") / "source.py"
    file.write_text("pass\n")
    assert source_commit(file) is None
    monkeypatch.setenv("PATH", str(file.parent))
    assert source_commit(source) is None
