"""The wire format of the original Co-Pilot: XMPP messages whose values are base64 attributes.

`parsing` turns bytes into an element, `envelope` an element into one message, `commands` its info
into a typed command; each also goes the other way. No I/O happens here.
"""
