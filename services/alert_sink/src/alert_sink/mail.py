"""The mail server: aiosmtpd does the protocol, this keeps what was sent."""

from email import message_from_bytes, policy
from email.message import EmailMessage

from aiosmtpd.smtp import SMTP, Envelope, Session

from alert_sink.records import Records

TAKEN = "250 Message accepted"


class Mailbox:
    """aiosmtpd's handler: every message is taken."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content if isinstance(envelope.content, bytes) else (envelope.content or "").encode()
        message = message_from_bytes(content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        body = message.get_body(("plain", "html"))
        text = body.get_content() if body else ""
        self._records.add("email", envelope.mail_from or "", envelope.rcpt_tos, str(message["subject"] or ""), text)
        return TAKEN
