"""The Leyline client SDK: connect, sign, submit, watch; async and sync."""
