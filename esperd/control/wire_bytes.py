"""Serialised protobuf put together from parts that are serialised already.

Pure. Parts of a message put one after the other are one message, and a submessage is its bytes behind tag and length:
so what many readers share is serialised once.
"""


def submessage(field_number: int, body: bytes) -> bytes:
    """The body as a field of a message."""
    return varint(field_number << 3 | 2) + varint(len(body)) + body


def varint(number: int) -> bytes:
    """A non-negative number as protobuf writes it."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
