"""Floor 4: the state of the database, how it changes, and the file that remembers it
(docs/format/manifest.md).

`Version` is immutable, `VersionEdit` changes it by a pure function, `VersionSet` makes each edit
durable before it is published.
"""

from holdfast.manifest.edit import VersionEdit, decode_edit, encode_edit
from holdfast.manifest.format import manifest_name, marker_name, parse_marker, parse_numbered
from holdfast.manifest.log import Recovered, VersionSet
from holdfast.manifest.reader import Manifest, ManifestRecord, decode_manifest
from holdfast.manifest.version import KeyspaceVersion, Version

__all__ = [
    "KeyspaceVersion",
    "Manifest",
    "ManifestRecord",
    "Recovered",
    "Version",
    "VersionEdit",
    "VersionSet",
    "decode_edit",
    "decode_manifest",
    "encode_edit",
    "manifest_name",
    "marker_name",
    "parse_marker",
    "parse_numbered",
]
