"""Which region a bucket lives in, asked of S3 itself."""

from __future__ import annotations

from sidecar.area.target import Target

_TIMEOUT_SECONDS = 5


def region_of(target: Target) -> str:
    """The bucket's region by the header that S3 gives even to strangers, or empty.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadBucket.html
    """
    import http.client
    import ssl
    import urllib.parse

    parts = urllib.parse.urlsplit(target.endpoint)
    try:
        if parts.scheme == "http":
            connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_SECONDS)
        else:
            context = ssl.create_default_context(cafile=target.ca_file)
            connection = http.client.HTTPSConnection(parts.netloc, timeout=_TIMEOUT_SECONDS, context=context)
        try:
            connection.request("HEAD", f"{parts.path}/{target.bucket}")
            return connection.getresponse().headers.get("x-amz-bucket-region", "")
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return ""  # the first error says what is wrong; this only would have said more
