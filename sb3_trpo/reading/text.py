"""Makes text of other people's files safe to print: a terminal obeys some letters."""


def printable(text: str, longest: int | None = None) -> str:
    """
    Replace letters that a terminal would obey instead of showing.

    :param text: any text
    :param longest: length at which the text is cut off
    :return: the text with ``?`` in their places; line ends stay
    """
    shown = text if longest is None or len(text) <= longest else text[:longest] + "…"
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in shown)
