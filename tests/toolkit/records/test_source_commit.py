"""The commit in records: of clean and changed git trees, and of files that no tree tracks."""

import subprocess

import pytest

from toolkit.records.source_commit import source_commit


def git(folder, *arguments):
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    return subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def source(tmp_path):
    """A committed source file of a package. The tree has a tag, which must not replace the commit."""
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


def test_the_commit_of_a_clean_tree(source):
    commit = source_commit(source)
    assert commit == git(source.parent, "rev-parse", "HEAD")
    assert len(commit) == 40


def test_a_changed_tree_has_the_suffix_dirty(source):
    source.write_text("changed\n")
    assert source_commit(source) == f"{git(source.parent, 'rev-parse', 'HEAD')}+dirty"


def test_untracked_files_do_not_change_the_commit(source):
    (source.parent / "records.jsonl").write_text("{}\n")
    assert source_commit(source) == git(source.parent, "rev-parse", "HEAD")


def test_a_package_installed_inside_another_tree_has_no_commit(source):
    installed = source.parents[1] / "venv" / "source.py"
    installed.parent.mkdir()
    installed.write_text("pass\n")
    assert source_commit(installed) is None


def test_without_a_tree_or_without_git_there_is_no_commit(source, tmp_path_factory, monkeypatch):
    file = tmp_path_factory.mktemp("installed") / "source.py"
    file.write_text("pass\n")
    assert source_commit(file) is None
    monkeypatch.setenv("PATH", str(file.parent))
    assert source_commit(source) is None
