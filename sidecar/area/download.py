"""One object on its way to us: its description first, then its bytes, resumed where the connection broke."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from sidecar.area.answers import Answer
from sidecar.area.connection import Connection
from sidecar.area.failures import Failure, failure
from sidecar.area.objects import ObjectInfo
from sidecar.area.patience import Patience
from sidecar.area.proof import prove
from sidecar.area.ranges import RANGE_BYTES, RANGED_FROM_BYTES, in_order
from sidecar.errors import ConditionFailed, ObjectDamaged

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta
    from obstore.store import S3Store

# A few buffers of the S3 library: more of them are put together in memory that is mapped for that alone
# (`sidecar.memory`), and fewer take the interpreter's lock more often.
_CHUNK_BYTES = 256 * 1024
# After a break: small enough that a slow line delivers one before the time-out of a whole answer.
_CAREFUL_CHUNK_BYTES = 64 * 1024
_STANDARD_HEADERS = frozenset(
    (
        "content-type",
        "content-encoding",
        "content-disposition",
        "content-language",
        "cache-control",
        "storage-class",
    )
)


def info_of(meta: ObjectMeta) -> ObjectInfo:
    """A listing line or an answer's head as ours."""
    etag = quoted(meta["e_tag"] or "")
    return ObjectInfo(meta["path"], meta["size"], etag, meta["last_modified"].timestamp())


def quoted(etag: str) -> str:
    """`etag` as a header has it: some servers leave the quotes out in listings only."""
    return f'"{etag}"' if etag and not etag.endswith('"') else etag


def metadata_of(result: GetResult) -> dict[str, str]:
    """The user metadata, names in lower case."""
    found = {name.lower(): value for name, value in result.attributes.items()}
    return {name: value for name, value in found.items() if name not in _STANDARD_HEADERS}


class Download:
    """An open object. ``info`` and ``metadata`` are of exactly the version whose bytes follow.

    Raises, while it is read
    ------------------------
    StoreUnreachable: the connection broke and did not come back in time.
    ConditionFailed: it broke, and the object is another one now.
    ObjectDamaged: more bytes came than the object has.
    """

    def __init__(
        self,
        connection: Connection,
        key: str,
        patience: Patience,
        if_match: str | None,
        expected_bytes: int = 0,
    ) -> None:
        self._connection = connection
        self._key = key
        self._patience = patience
        self._what = f"reading s3://{connection.target.bucket}/{key}"
        self._is_ranged = expected_bytes >= RANGED_FROM_BYTES
        self._result: GetResult | None = patience.attempt(lambda: self._begun(if_match))
        self.info = info_of(self._result.meta)
        self.metadata = metadata_of(self._result)
        prove(connection, key, patience, self._what)

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *exc: object) -> None:
        self._result = None  # an unread body ends its connection

    def chunks(self, size: int = _CHUNK_BYTES) -> Iterator[bytes]:
        """The bytes in order, about `size` at a time; of a large object, a range at a time."""
        if self._is_ranged and self.info.etag and self._result is not None:
            yield from self._ranges()
            return
        offset, wanted = 0, self.info.size
        stream = self._taken(size)
        while offset < wanted:
            try:
                chunk = self._next(stream)
            except Failure as broken:
                stream = self._resumed(offset, broken)
                continue
            offset += len(chunk)
            if offset > wanted:
                raise ObjectDamaged(f"{self._what} gave more than its {wanted} bytes", "it is read again")
            self._patience.progress()
            yield chunk

    def _ranges(self) -> Iterator[bytes]:
        """The first range is on its way already; the others come over connections of their own."""
        first, self._result = self._result, None
        end = min(RANGE_BYTES, self.info.size)
        try:
            data = self._connection.call(self._what, lambda _: _held(first), of_body=True)
            self._connection.traffic.count("get", requests=0, received=len(data))
        except Failure as broken:
            self._patience.after(broken)
            data = b""
        yield data if len(data) == end else self._range(0, end)
        for data in in_order(self._range, end, self.info.size, self._connection.ranges_ahead):
            self._patience.progress()
            yield data

    def _range(self, offset: int, length: int) -> bytes:
        try:
            return _range_of(
                self._connection, self._key, offset, length, self.info.etag, self._patience.again()
            )
        except ConditionFailed as error:
            raise ConditionFailed(
                f"{self._what} in ranges, and it is another version now", "it is read again"
            ) from error

    def read(self) -> bytes:
        """All bytes."""
        result, self._result = self._result, None
        if result is not None:
            try:
                whole = self._connection.call(self._what, lambda _: bytes(result.bytes()), of_body=True)
            except Failure as broken:
                self._patience.after(broken)
            else:
                if len(whole) == self.info.size:
                    self._connection.traffic.count("get", requests=0, received=len(whole))
                    return whole
        return b"".join(self.chunks())

    def _begun(self, if_match: str | None) -> GetResult:
        if not self._is_ranged:
            return self._get(0, if_match)
        try:
            return self._get(0, if_match, RANGE_BYTES)
        except Failure as failed:
            if failed.answer.trouble != "no ranges" and failed.answer.status != 416:  # 416: it is empty now
                raise
            self._is_ranged = False
            return self._get(0, if_match)

    def _get(self, offset: int, if_match: str | None, length: int | None = None) -> GetResult:
        import obstore

        options: dict[str, Any] = {}
        if if_match:
            options["if_match"] = if_match
        if length is not None:
            options["range"] = (offset, offset + length)
        elif offset:
            options["range"] = {"offset": offset}
        self._connection.traffic.count("get")
        return self._connection.call(
            self._what,
            lambda store: obstore.get(store, self._key, options=cast(Any, options)),
            reads_object=True,
        )

    def _taken(self, size: int) -> Iterator[bytes]:
        result, self._result = self._result, None
        if result is None:  # it was read before: from the start again, but of the same version
            result = self._patience.attempt(lambda: self._get(0, self.info.etag))
        return iter(result.stream(min_chunk_size=size))

    def _next(self, stream: Iterator[bytes]) -> bytes:
        chunk = self._connection.call(self._what, lambda _: next(stream, b""), of_body=True)
        if not chunk:
            short = Answer(trouble="broken", detail="the body is shorter than announced")
            raise failure(short, self._connection.where(self._what))
        self._connection.traffic.count("get", requests=0, received=len(chunk))
        return chunk

    def _resumed(self, offset: int, broken: Failure) -> Iterator[bytes]:
        self._patience.after(broken)
        if not self.info.etag:
            raise broken.error from broken  # nothing says that the rest would be of the same version
        try:
            result = self._patience.attempt(lambda: self._get(offset, self.info.etag))
        except ConditionFailed as error:
            raise ConditionFailed(
                f"{self._what} broke off, and it is another version now", "it is read again"
            ) from error
        if result.range != (offset, self.info.size):
            raise ObjectDamaged(
                f"{self._what} from {offset} gave the range {result.range}", "it is read again"
            )
        return iter(result.stream(min_chunk_size=_CAREFUL_CHUNK_BYTES))


def read_range(
    connection: Connection, key: str, offset: int, length: int, if_match: str, patience: Patience
) -> bytes:
    """Exactly `length` bytes from `offset` of the version `if_match`."""
    return bytes(_range_of(connection, key, offset, length, if_match, patience))


def _held(result: GetResult | None) -> bytes:
    """The body as obstore holds it, which can be hashed and written: a copy would be as large again."""
    return cast(bytes, result.bytes()) if result is not None else b""


def _range_of(
    connection: Connection, key: str, offset: int, length: int, if_match: str, patience: Patience
) -> bytes:
    import obstore

    what = f"reading s3://{connection.target.bucket}/{key}"
    wanted = (offset, offset + length)

    def request(store: S3Store) -> bytes:
        return _held(obstore.get(store, key, options={"range": wanted, "if_match": if_match}))

    def attempt() -> bytes:
        connection.traffic.count("get")
        try:
            return connection.call(what, request, reads_object=True)
        except Failure as failed:
            if failed.answer.trouble != "no ranges":
                raise
            with Download(connection, key, patience, if_match) as download:
                return download.read()[offset : offset + length]

    got = patience.attempt(attempt) if length > 0 else b""
    if len(got) != max(length, 0):
        raise ObjectDamaged(f"{what} gave {len(got)} bytes instead of {length}", "it is read again")
    connection.traffic.count("get", requests=0, received=len(got))
    return got
