"""Makes text of other people's files safe to print: a terminal obeys some letters."""


def printable(text: str) -> str:
    """
    Replace letters that a terminal would obey instead of showing.

    :param text: any text
    :return: the text with ``?`` in their places; line ends stay
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
