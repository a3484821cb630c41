"""S3 and what speaks like it: an XML `Error` document, https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html.

Its clients parse every error as XML, and a JSON body as a fault of the network.
"""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

from proxy.dialects.aws_json import status
from proxy.dialects.plain import body
from proxy.reply import Reply, Told, type_name
from rules.call import Call

_HOST = re.compile(r"(?:.*\.)?s3(?:[.-][a-z0-9-]+)*\.amazonaws\.com(?:\.cn)?")
_SCOPE = re.compile(r"Credential=[^,/]+/[0-9]{8}/[^,/]+/s3/aws4_request")


def spoken_in(call: Call) -> bool:
    """Its hosts, and every call that is signed for the service."""
    return _HOST.fullmatch(call.host) is not None or _SCOPE.search(call.header("authorization") or "") is not None


def write(told: Told) -> Reply:
    """The document."""
    resource = told.call.path if told.call is not None else "/"
    content = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{type_name(told.code)}</Code><Message>{escape(told.message)}</Message>"
        f"<Resource>{escape(resource)}</Resource><RequestId>{escape(told.call_id)}</RequestId></Error>\n"
    )
    return body(told, status(told), "application/xml", content.encode())
