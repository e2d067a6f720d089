"""`esperd demo`: real daemons, real policy processes, and the arms they are held against, in one table."""
