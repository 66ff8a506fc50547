"""The output folder of a run: `run.json`, the files of the manifest, and the folder `shards`.

`run.json` is written after the manifest, and contains the settings and what was listed. Nothing in these files depends on the time or the
machine, so folders of several parts of a run can be copied into one.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any, Final

from runtimes.artifact import json_dataclass
from runtimes.errors import DatasetError, OutputExistsError, RequestError, first_line
from toolkit.distribute.entry import Entry
from toolkit.distribute.manifest import ManifestFile, shards_of, write_manifest
from toolkit.distribute.shard import SUFFIX, shard_name
from toolkit.distribute.sources.inputs import Inputs, list_inputs
from toolkit.distribute.stores.store import Store
from toolkit.distribute.stores.stores import Stores

SCHEMA: Final = 1
RUN_FILE: Final = "run.json"
MANIFEST: Final = "manifest-"
"""Names of the files of the manifest begin with it. Without `run.json`, they are of a listing that was stopped."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Inputs and the file of the manifest that lists them."""

    inputs: Inputs
    manifest: ManifestFile


@dataclass(frozen=True, kw_only=True)
class Run:
    """The content of `run.json`."""

    schema: int
    settings: Mapping[str, Any]
    """The digest of the artifact and the fields of `Request`."""
    shard_size: int
    listings: tuple[Listing, ...]

    @property
    def manifests(self) -> tuple[ManifestFile, ...]:
        """The files of the manifest."""
        return tuple(listing.manifest for listing in self.listings)

    @property
    def rows(self) -> int:
        """Number of inputs."""
        return sum(manifest.rows for manifest in self.manifests)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return sum(shards_of(manifest, self.shard_size) for manifest in self.manifests)

    def rows_of(self, shard: int) -> int:
        """Return the number of rows of a shard."""
        manifest = next(file for file in reversed(self.manifests) if file.first_shard <= shard)
        return min(self.shard_size, manifest.rows - (shard - manifest.first_shard) * self.shard_size)


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """An output folder.

    Args:
        path: Its name.
        stores: The stores of the run.
    """

    path: str
    stores: Stores

    @property
    def _store(self) -> Store:
        return self.stores.of(self.path)

    def finished_shards(self) -> Mapping[int, int]:
        """Return number → size in bytes of the shards that are complete.

        Raises:
            DatasetError: The folder cannot be read.
        """
        try:
            sizes = self._store.sizes(f"{self.path}/shards")
        except OSError as error:
            raise DatasetError(self.path, f"cannot be read: {first_line(error)}") from error
        return {number: size for name, size in sizes.items() if name.endswith(SUFFIX) and (number := _number(name)) is not None}

    def remove_leftovers(self, shards: range, *, alone: bool) -> None:
        """Remove the temporary files of killed processes.

        Args:
            shards: The shards that only this process and those that it starts write.
            alone: Whether this is true for the other files, too.
        """
        self._store.remove_temporaries(f"{self.path}/shards", lambda name: _number(name) in shards)
        if alone:
            self._store.remove_temporaries(self.path, lambda name: name == RUN_FILE or _is_manifest(name))

    def open(
        self, settings: Mapping[str, Any], shard_size: int, inputs: Inputs, *, extend: bool, on_listed: Callable[[], None] = lambda: None
    ) -> Run:
        """Return the run of this folder; list the inputs if it has none yet.

        Settings and inputs of a run without a finished shard can still change.

        Args:
            settings: See `Run`.
            shard_size: See `Run`.
            inputs: The inputs of this command.
            extend: Whether to list the inputs, and to add those that the run does not have.
            on_listed: Called for each input that is listed.

        Raises:
            RequestError: The folder has a run with other settings or inputs.
            OutputExistsError: The folder has other files.
            DatasetError: An input cannot be listed.
            OutputError: The folder cannot be written.
        """
        run, started = self._read(), bool(self.finished_shards())
        new = Run(schema=SCHEMA, settings=settings, shard_size=shard_size, listings=())
        if run is None:
            if started or not all(name.startswith(".") or _is_manifest(name) for name in self._store.sizes(self.path)):
                raise OutputExistsError(self.path, "It is not the folder of a run: choose another --output.")
            return self._add_listing(new, inputs, on_listed)
        if started:
            self._check_settings(run, new)
        elif run.shard_size == shard_size and any(listing.inputs == inputs for listing in run.listings):
            run = replace(run, settings=settings)
            self.write(run)
        else:
            return self._add_listing(new, inputs, on_listed)
        if extend:
            return self._add_listing(run, inputs, on_listed)
        if all(listing.inputs != inputs for listing in run.listings):
            same = next((listing.inputs for listing in run.listings if str(listing.inputs) == str(inputs)), None)
            if same is not None:
                changed = [field.name for field in fields(inputs) if getattr(same, field.name) != getattr(inputs, field.name)]
                was = ", ".join(f"{name} was {getattr(same, name)!r} and is {getattr(inputs, name)!r}" for name in changed)
                raise RequestError(f"{self.path}: its inputs were listed with other options: {was}. Use the same, or another --output.")
            inputs_before = "; ".join(str(listing.inputs) for listing in run.listings)
            raise RequestError(
                f"{self.path}: has captions of other inputs ({inputs_before}). Add {inputs} with --extend, or choose another --output."
            )
        return run

    def _add_listing(self, run: Run, inputs: Inputs, on_listed: Callable[[], None]) -> Run:
        """List inputs, write a file of the manifest if there are new ones, and return the run with them."""
        entries = list_inputs(inputs, self.stores)
        if (first := next(entries, None)) is None:
            raise DatasetError(str(inputs), "no input")
        self._store.prepare(self.path)

        def counted() -> Iterator[Entry]:
            for entry in chain((first,), entries):
                on_listed()
                yield entry

        earlier = [(manifest, f"{self.path}/{manifest.file}") for manifest in run.manifests]
        path = f"{self.path}/{MANIFEST}{len(earlier):04}.parquet"
        if (manifest := write_manifest(counted(), run.shard_size, path, self._store, earlier)) is not None:
            run = replace(run, listings=(*run.listings, Listing(inputs=inputs, manifest=manifest)))
            self.write(run)
        return run

    def _check_settings(self, run: Run, new: Run) -> None:
        then, now = {**run.settings, "shard_size": run.shard_size}, {**new.settings, "shard_size": new.shard_size}
        if differing := [name for name in now if then.get(name) != now[name]]:
            changes = "; ".join(f"{name} {then.get(name)!r} then, {now[name]!r} now" for name in differing)
            raise RequestError(f"{self.path}: was started with other settings ({changes}). Use the same settings, or another --output.")

    def _read(self) -> Run | None:
        path = f"{self.path}/{RUN_FILE}"
        try:
            with self._store.open(path) as file:
                content = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DatasetError(path, f"cannot be read: {first_line(error)}") from error
        try:
            run, problems = json_dataclass.load(Run, json_dataclass.parse(content))
        except ValueError as error:
            raise DatasetError(path, f"is not JSON: {first_line(error)}") from error
        if run is None or run.schema != SCHEMA:
            raise DatasetError(path, f"is not the file of a run of this toolkit: {'; '.join(problems) or 'another schema'}")
        return run

    def write(self, run: Run) -> None:
        """Write `run.json`.

        Raises:
            OutputError: It cannot be written.
        """
        self._store.write(f"{self.path}/{RUN_FILE}", json.dumps(json_dataclass.dump(run), indent=1).encode() + b"\n")


def _is_manifest(name: str) -> bool:
    return name.startswith(MANIFEST)


def _number(name: str) -> int | None:
    """Return the number of the shard that a file of the folder `shards` belongs to."""
    stem, _, suffix = name.partition(".")
    return int(stem) if suffix in ("parquet", "json") and stem.isdecimal() and stem == shard_name(int(stem)) else None
