"""Where the sentences of a report end: in English, German and Swedish, in the shorthand that ECGs are reported in.

A wrong cut is worse than a missing one: `Poss. inferior infarct` cut at its dot makes a certain infarct of a possible
one, and `Infarct? Not excluded.` a certain one of a doubt. So an abbreviation, an ordinal and a date hold a sentence
together, and words that only deny or doubt stay with the sentence before them.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

# What an abbreviation's dot means. OPENING: a word must follow, so never an end. ATTRIBUTE: it may stand before its
# noun or behind it (`inf. infarct`, `ST elevation inf.`); a capital letter tells. CLOSING: an end, unless a report that
# has capital letters goes on with a small one.
_OPENING = """
    poss possib prob probab susp sugg cons quest presum approx appr vs c/w e.g eg i.e ie cf incl excl esp viz
    inc incomp incompl comp compl intermitt interm occas freq assoc nonspec non-spec nonsp unspec signif sl mod bord
    borderl dr prof mr mrs pat fig dx ddx abl
    mögl möglw moegl wahrsch wahrscheinl verm vermutl evtl evt ev fragl frgl verd v.a z.a v.d dd a.e
    z.b zb u.a ua d.h dh i.s sog ggf ggfs bzw bezw resp ca insb insbes inkl exkl entspr vgl m.e u.u i.d.r
    z.n zn st.n st.p z.t zt n.n s.a höchst zw geg gegenüb aufgr zus postop präop preop no
    kompl inkompl unvollst vollst vollständ unvollständ part unspez grenzw beg ausgepr geringgr geringfüg hochgr mäß
    mäss intermittier rez abs frühz ventr vent supraventr supravent intraventr intravent linksventr rechtsventr atr
    tachyk bradyk normok linksant linkspost überdr
    t.ex tex bl.a möjl sannol misst d.v.s dvs jmf jfr s.k f.ö p.g.a pga ospec amplitudkrit p.s.s
"""
_ATTRIBUTE = """
    ant inf lat sept post sup anterolat inferolat anterosept posterolat path patol neg pos abn abnorm norm chron akut
    nr min max elev depr hypertr diff hor vert re li sin dex unbest unveränd event
    jan feb febr mar mär apr jun jul aug sep oct okt nov dec dez
"""
_CLOSING = "etc usw u.s.w osv m.m m.fl undet indet sec sek msec std bds o.b i.o a.m p.m s.o s.u dev"

_KINDS = {
    word: kind
    for kind, words in (("opening", _OPENING), ("attribute", _ATTRIBUTE), ("closing", _CLOSING))
    for word in words.split()
}
_ABBREVIATION = re.compile(
    r"(?<![\w.])(?=[^\W\d_]+[./-])(?!(?<=[\d/])min|(?<=\d )min)(?:"  # `5/min.` holds a unit
    + "|".join(re.escape(word).replace(r"\.", r"\.\s?") for word in sorted(_KINDS, key=len, reverse=True))
    + r")(?<!\bno(?!\.\s?\d))\.",  # `No. 3`, but `Infarct? No.`
    re.IGNORECASE,
)

_CAPITAL, _SMALL = "A-ZÄÅÖØÜÉ", "a-zäåöøüéß"
_CANDIDATE = re.compile(
    r"[.;]+(?=\s|$)"
    r"|;"
    rf"|(?<=[\w)])\.(?=[{_CAPITAL}][{_SMALL}])"  # `rhythm.Normal`
    rf"|(?<=[\w)])(?P<kept>[?!]+)(?=\s+[{_CAPITAL}])"
    r"|(?<=\d)\.(?=[^\W\d_])"  # `V6.Sinus`, `2.LBBB`
    r"|(?<!\S)\(?(?P<item>\d{1,2})\.?\)(?=\s)"  # `1) Sinus rhythm 2) LBBB`
    r"|[•▪◦‣►●]"
)
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|[aou]uml|szlig|#\w+)$", re.IGNORECASE)  # `ST &amp; T`
_LEADS = re.compile(
    r"(?<!\w)a?v\s?[1-9rlf]r?(?:\s*(?:,|/|\+|&|-|–|and|to|und|u|bis|och|till)\s*v?\s?\d)*$", re.IGNORECASE
)
_NUMBER = re.compile(r"(?<![\w.,:/-])(?:\d{1,2}(?:\.\d{1,2})*|i{1,3}|iv)$", re.IGNORECASE)
_ORDINAL_BEFORE = re.compile(
    r"(?<!\w)(?:am|vom|zum|der|die|das|des|dem|den|im|beim|jede[mnrs]?)\s+[\d.]+$", re.IGNORECASE
)
_ORDINAL_BEHIND = re.compile(
    r"\s*(?:grad(?:e[sn]?|ig\w*)?|degrees?|°|tag(?:e[sn]?)?|woche\w*|monat\w*|icr|ics|interkostal\w*|herzton\w*|ton|mal"
    r"|jan(?:uar[iy]?)?|feb(?:ruar[iy]?)?|märz?|mar(?:ch|s)?|apr(?:il)?|ma[ij]|jun[ei]?|jul[iy]?|aug(?:ust[i]?)?"
    r"|sept?(?:ember)?|o[ck]t(?:ober)?|nov(?:ember)?|de[cz](?:ember)?|\d{1,2}\.\s*\d{2,4})(?!\w)",
    re.IGNORECASE,
)
_DAY_AND_MONTH = re.compile(r"\d\.\s?\d{1,2}$")
_YEAR = re.compile(r"['’]?\d{2}(?:\d{2})?(?!\w)")
_CLAUSE_BEGINS = re.compile(
    r"(?:^|[,:;(/–]|(?<!\w)(?:and|or|with|und|u|oder|mit|bei|och|eller|med|vid|in|of|the|an?|eine?|old|new|alter?|acute"
    r"|recent|possible|probable|akuter?|frischer?|chronischer?))\s*$",
    re.IGNORECASE,
)
_ITS_NOUN = re.compile(
    r"(?:infar[ck]t\w*|i[sz]ch[aäe]\w*|mi|wall|wand|leads?|hemiblock|ableitung\w*|myo[ck]ard\w*|fascic\w*|axis|e[ck]g|st|[tqrp])"
    r"(?!\w)",
    re.IGNORECASE,
)

_BULLET = re.compile(r"^(?:[-–—*·•▪◦‣►●]\s+|[•▪◦‣►●])")
_LIST_ITEM = re.compile(r"\(?(?:\d{1,2}|[a-h])[.)]{1,2}\s")
_LINE_IS_OPEN = re.compile(
    r"(?:[,:(/&+-]|(?<!\w)(?:and|or|with|without|of|in|on|to|by|for|from|the|an?|is|are|be|may|cannot|rule|out|no|not"
    r"|consider|possible|probable|suspected|acute|old|recent|due|than|und|oder|mit|ohne|auf|von|vom|für|bei|im|am|ein|eine"
    r"|kein|keine|nicht|möglicher|alter|verdacht|och|eller|med|utan|vid|av|i|för|ej|inte))$",
    re.IGNORECASE,
)
_WINDOW = 80  # characters around a mark that tell what it is
_NARROW = 40  # characters: nobody wraps a text to lines shorter than this


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Sentences of these words alone say of the one before whether it is true.
_DENIES_OR_DOUBTS = _set_of("""
    no not none nil absent excluded unlikely likely possible possibly probable probably questionable doubtful uncertain
    undetermined unclear cannot ruled
    nicht nein kein keine keiner keines ausgeschlossen auszuschliessen auszuschließen fraglich möglich möglicherweise
    wahrscheinlich unwahrscheinlich unsicher zweifelhaft unklar
    ej inte icke nej ingen inget inga uteslutas uteslutet utesluten uteslutna möjlig möjligt möjligen sannolik sannolikt
    osäker osäkert tveksam tveksamt
""")
_ALTERNATIVES = frozenset(("or", "nor", "oder", "noch", "eller"))
_HEADING_DENIES = re.compile(
    r"(?<!\w)(?:no|not|without|denied|absent|excluded?|ruled?|negative|poss(?:ible)?|prob(?:able)?|consider|suspected|suspicion"
    r"|differential|ddx?|kein\w*|nicht|ohne|weder|ausschluss|ausgeschlossen|verdacht\w*|v\.\s?a|mögl\w*|fragl\w*"
    r"|inga|ingen|inget|ej|icke|inte|utan|misstänkt\w*|misstanke)(?!\w)[^:]*:",
    re.IGNORECASE,
)
_BESIDE_THEM = _set_of("""
    is are was were be been can could may might has have it this there but however very age most more entirely
    definitely clearly completely longer present seen found visible evident detected detectable demonstrated identified
    noted rule out
    ist sind war wird wurde wurden werden kann können konnte sicher mehr eher sehr aber jedoch derzeit nachweisbar
    nachzuweisen vorhanden erkennbar sichtbar abgrenzbar zu sehen gesehen
    är var kan kunde men dock säkert ses synlig påvisas påvisbar påvisbart föreligger finns
""")


def split_sentences(lines: Sequence[str], length: int) -> tuple[str, ...]:
    """The sentences of a report in `lines`, of which the first `length` characters count, with a blank for each break.

    A break ends a sentence before a bullet or a numbered item, and before a capital letter where lines are a list and
    not a wrapped text. Bullets are removed; numbers stay, because `2. LBBB` and `2. Grades` look the same.
    """
    text = " ".join(lines)[:length]
    in_list = _is_list(lines)
    starts, at = [0], 0
    for line, following in itertools.pairwise(lines):
        at += len(line) + 1
        if at < length and _begins_anew(line, following, in_list=in_list):
            starts.append(at)
    found: list[str] = []
    heading_denies = False
    for start, end in itertools.pairwise([*starts, length]):
        part = _BULLET.sub("", text[start:end].strip(), count=1)
        cut = 0
        for first, last in sentence_spans(part):
            sentence, mark, cut = part[first:last].strip(), part[cut:first].strip(), last
            if not any(map(str.isalnum, sentence)):
                continue
            is_item = (first == 0 and start > 0) or _LIST_ITEM.match(sentence)
            asked = bool(found) and found[-1].endswith("?")
            if found and ((heading_denies and is_item) or _belongs_to_the_last(sentence, asked=asked)):
                found[-1] += (mark or ";"[: found[-1][-1].isalnum()]) + f" {sentence}"
                continue
            heading_denies = bool(_HEADING_DENIES.search(sentence))
            if heading_denies or not sentence.endswith(":"):
                found.append(sentence)  # `Findings:` says nothing, `No evidence of:` what its list is about
    return tuple(found)


def _is_list(lines: Sequence[str]) -> bool:
    """Whether each line is an item: a wrapped text is wide, and breaks only where the next word has no room."""
    longest = max(map(len, lines), default=0)
    return longest < _NARROW or any(
        len(one) + 1 + len(other.split(maxsplit=1)[0]) <= longest for one, other in itertools.pairwise(lines)
    )


def _begins_anew(before: str, line: str, *, in_list: bool) -> bool:
    if _BULLET.match(line):
        return True
    goes_on = bool(_LINE_IS_OPEN.search(before)) or _ends_in_opening(before)
    if item := _LIST_ITEM.match(line):
        return (not goes_on or before.endswith(":")) and not _ORDINAL_BEHIND.match(line, item.end())
    return in_list and line[0].isupper() and not goes_on


def _ends_in_opening(line: str) -> bool:
    last = line.rsplit(maxsplit=1)[-1]
    return bool(_ABBREVIATION.fullmatch(last)) and _kind(last) == "opening"


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where each sentence of a text in one line begins and ends, without the mark behind it."""
    abbreviations = {match.end() - 1: match for match in _ABBREVIATION.finditer(text)}
    inner_dots = {match.start() + at for match in abbreviations.values() for at in _dots(match.group()[:-1])}
    start, item = 0, 0
    for match in _CANDIDATE.finditer(text):
        before = text[start : match.start()][-_WINDOW:]
        number = match["item"] or _item_number(before, match, text)
        ahead = before.removesuffix(number).rstrip(" (")
        if number and (not ahead or int(number) == item + 1 > 1 or (ahead[-1] == ":" and number == "1")):
            # An item of a numbered list begins: what stands before its number is the sentence before it.
            cut = match.start() if match["item"] else match.start() - len(number)
            yield start, cut
            start, item = cut, int(number)
        elif match["item"] or match.start() in inner_dots or _ENTITY.search(before):
            continue
        elif match.group() != "." or _is_end(text, match.start(), before, abbreviations.get(match.start())):
            yield start, match.end() if match["kept"] else match.start()
            start = match.end()
    yield start, len(text)


def _is_end(text: str, dot: int, before: str, abbreviation: re.Match[str] | None) -> bool:
    """Whether the dot at `dot` ends the sentence that `before` is the last part of."""
    behind = text[dot + 1 : dot + 1 + _WINDOW].lstrip()
    if not behind:
        return True
    if abbreviation:
        return _abbreviation_ends(text, abbreviation, before, behind)
    before = before.lstrip(" (")
    number = _NUMBER.search(before)
    if number is None or (_LEADS.search(before) and not number.group().isalpha()):
        return len(before) > 1  # a letter alone counts an item: `a. Sinus rhythm`
    if number.start() == 0 or _ORDINAL_BEHIND.match(behind):
        return False
    if _DAY_AND_MONTH.search(before) and _YEAR.match(behind):
        return False
    return number.group().isalpha() or not _ORDINAL_BEFORE.search(before)


def _abbreviation_ends(text: str, abbreviation: re.Match[str], before: str, behind: str) -> bool:
    kind = _kind(abbreviation.group())
    if kind == "closing":
        return not (behind[0].islower() and re.search("[A-Z]", text))
    clause = before[: len(before) + 1 - len(abbreviation.group())]
    has_noun = _ITS_NOUN.match(behind) or _CLAUSE_BEGINS.search(clause)
    return kind == "attribute" and behind[0].isupper() and not text.isupper() and not has_noun


def _item_number(before: str, mark: re.Match[str], text: str) -> str:
    """The number that `mark` makes an item of a list, if it does."""
    found = _NUMBER.search(before) if mark.group() == "." else None
    if found is None or not found.group().isdigit() or _LEADS.search(before):
        return ""
    behind = text[mark.end() : mark.end() + _WINDOW].lstrip()
    return "" if _ORDINAL_BEHIND.match(behind) or _LIST_ITEM.match(behind) else found.group()


def _kind(abbreviation: str) -> str:
    return _KINDS["".join(abbreviation.casefold().split()).removesuffix(".")]


def _dots(text: str) -> Iterable[int]:
    return (at for at, character in enumerate(text) if character == ".")


def _belongs_to_the_last(sentence: str, *, asked: bool) -> bool:
    """Whether a sentence only denies or doubts, as `Not excluded`, or goes on with an alternative, as `or infarct`."""
    words = re.findall(r"\w+", sentence.casefold())
    if words == ["none"]:
        return asked  # elsewhere it is how Python writes that a part of the report is missing
    if words[0] in _ALTERNATIVES:
        return True
    return any(word in _DENIES_OR_DOUBTS for word in words) and all(
        word in _DENIES_OR_DOUBTS or word in _BESIDE_THEM for word in words
    )
