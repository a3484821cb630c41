"""AWS services with the query protocol (STS, SNS, IAM, EC2 and others): XML as they answer forms with `Action=`.

https://smithy.io/2.0/aws/protocols/aws-query-protocol.html#operation-error-serialization
"""

from __future__ import annotations

from xml.sax.saxutils import escape

from proxy.dialects.aws_json import status
from proxy.dialects.plain import body
from proxy.reply import Reply, Told, type_name
from rules.call import Call


def spoken_in(call: Call) -> bool:
    """A form for one of its hosts."""
    form = (call.header("content-type") or "").lower().startswith("application/x-www-form-urlencoded")
    return form and call.host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def write(told: Told) -> Reply:
    """The document."""
    content = (
        "<ErrorResponse><Error><Type>Sender</Type>"
        f"<Code>{type_name(told.code)}</Code><Message>{escape(told.message)}</Message></Error>"
        f"<RequestId>{escape(told.call_id)}</RequestId></ErrorResponse>\n"
    )
    return body(told, status(told), "text/xml", content.encode())
