"""Have any login shell run a command, and tell the command's output from the login's."""

import re

# Printed first, on stdout and on stderr: a login may print something of its own before it.
BEGIN = b"tally: the command begins\n"
# bsd-csh reads no word of 1 KiB.
WORD = 500
# First, what csh leaves open to copies of its output. At the end, the input is read in any case:
# sshd ends the whole connection if input comes for a channel that it has closed.
FRAME = """\
exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
echo '{begin}'; echo '{begin}' >&2
{line}
code=$?
exec >&- 2>&-
cat > /dev/null
exit $code"""


def framed(line: str) -> str:
    """Return what runs a line of sh in any login shell, with BEGIN before its output."""
    return through_sh(FRAME.format(begin=BEGIN.decode().strip(), line=line))


def through_sh(script: str) -> str:
    """Return what sh, bash, zsh, fish, csh and tcsh all read as: run this script with sh.

    They agree on single quotes, unless these hold a quote, a backslash, an exclamation mark or
    a line's end, so printf(1) makes those.
    """
    text = re.sub(r"[^ -~]|['\\!]", _octal, script)
    words = re.findall(rf"(?:\\0...|[^\\]){{1,{WORD}}}", text)
    quoted = " ".join(f"'{word}'" for word in words)
    return f"""exec sh -c 'eval "$(printf %b "$@")"' sh {quoted}"""


def _octal(character: re.Match[str]) -> str:
    return "".join(rf"\0{byte:03o}" for byte in character[0].encode())
