"""What s5cmd says of a command that failed, as an answer of the store.

It prints the errors of AWS's SDK for Go on one line: ``Code: message status code: 403, request id: …``;
behind ``caused by:`` stands what matters (https://pkg.go.dev/github.com/aws/aws-sdk-go/aws/awserr).
"""

from __future__ import annotations

import re

from sidecar.area.answers import Answer
from sidecar.area.s5cmd.batch import SILENT

EXISTS = "object already exists"
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"([A-Za-z][A-Za-z0-9._]*): ")
_OF_THE_SDK = {
    "RequestError",
    "RequestCanceled",
    "ReadFailed",
    "SerializationError",
    "MultipartUpload",
    "MultipartUploadError",
    "BatchedDeleteIncomplete",
}
# Answers to HEAD have no body: the SDK puts the status's own words in the place of a code.
_OF_STATUS = {"NotFound", "Forbidden", "BadRequest", "MovedPermanently"}
_TROUBLE = (
    ("dns", ("no such host", "server misbehaving", "name resolution")),
    ("connect", ("connection refused", "no route to host", "network is unreachable")),
    ("tls", ("x509:", "tls:", "server gave HTTP response to HTTPS client")),
    ("timeout", (SILENT, "i/o timeout", "deadline exceeded", "Timeout")),
)


def of_s5cmd(text: str) -> Answer:
    """The answer in `text`. Where there is none, the connection broke and it may have been carried out."""
    cause = text.rpartition("caused by: ")[2]
    status = _STATUS.search(cause) or _STATUS.search(text)
    if status and int(status.group(1)) >= 300:
        code = _CODE.match(cause)
        word = code.group(1) if code else ""
        known = "" if word in _OF_THE_SDK | _OF_STATUS else word
        message = cause[code.end() if code else 0 :].partition(" status code:")[0].strip()
        return Answer(status=int(status.group(1)), code=known, message=message)
    if "NoCredentialProviders" in text or "EmptyStaticCreds" in text:
        return Answer(trouble="credentials", detail=cause[:200], of_credentials=True)
    for trouble, signs in _TROUBLE:
        if any(sign in text for sign in signs):
            return Answer(trouble=trouble, detail=cause[:200])
    return Answer(trouble="broken", detail=cause[:200])


def is_of_staging(text: str) -> bool:
    """True where not the store failed, but the volume that the bytes are staged on."""
    return "no space left on device" in text or "disk quota exceeded" in text
