"""The language of a report, by a table of words that are frequent in ECG reports of one language, or of few.

Language identifiers from the shelf (lingua, langid, fastText) are trained on whole sentences, and weigh more than this
package. Reports are telegrams in a Latin that all languages share (`sinus rhythm`, `sinusrhythmus`, `sinusrytm`): a few
words of each tell them apart."""

import re
import unicodedata

UNKNOWN = "und"
"""BCP 47's code for a language that was not determined."""

_WORDS = {
    "en": "the and with of is are or no not rhythm block wave possible probable abnormal left right beat beats axis "
    "consider cannot excluded atrial ventricular arrhythmia bradycardia tachycardia otherwise ecg non tracing heart "
    "rate changes depression fibrillation premature complete incomplete lead leads",
    "de": "und oder mit der die das des ist kein keine nicht bei sinusrhythmus rhythmus vorhofflimmern normales "
    "lagetyp linkstyp rechtstyp steiltyp indifferenttyp links rechts linksschenkelblock rechtsschenkelblock ekg "
    "veraenderungen veränderungen unspezifisch unspezifische abnorm hypertrophie schrittmacher überdrehter "
    "ueberdrehter verdacht auf abnormal abnormale abnormales infarkt lateraler unspezifischer unspezifisches "
    "ventrikuläre ventrikulaere möglich moeglich sinusbradykardie sinustachykardie extrasystole wahrscheinlich "
    "myokardschaden erregungsrückbildung erregungsrueckbildungsstoerung herzfrequenz sonst tachykardie",
    "sv": "och är inte ej eller utan rytm sinusrytm förmaksflimmer vänster höger vänsterskänkelblock skänkelblock "
    "ospecifik ospecifikt ospecifika förändring förändringar onormal onormalt förhöjd förlopp möjlig trolig "
    "sidoförändring sinusbradykardi sinustakykardi normalt ekg eljest låga lågt svårbestämmbar axel avvikande "
    "hjärtfrekvens takykardi bradykardi grenblock extrasystolier elaxel",
    "da": "og ikke eller ellers hjertefrekvens sinusrytme atrieflimren venstre højre venstresidigt højresidigt "
    "grenblok uspecifikke forandringer mulig unormalt normalt ekg",
    "nl": "en het een niet geen of sinusritme ritme boezemfibrilleren linkerbundeltakblok rechterbundeltakblok "
    "bundeltakblok afwijkend afwijkingen mogelijk waarschijnlijk hartfrequentie hartas",
    "fr": "et le la les des du avec est sans ou non rythme sinusal gauche droit bloc branche onde ondes axe anomalie "
    "anomalies possible probable fibrillation auriculaire repolarisation tracé sous hémibloc troubles",
    "es": "y el los las del con es sin ritmo sinusal izquierdo izquierda derecho derecha bloqueo rama onda ondas eje "
    "fibrilación auricular alteraciones trastorno repolarización posible taquicardia anormal",
    "pt": "e do da dos das com não sem ritmo sinusal esquerdo esquerda direito direita bloqueio ramo onda ondas eixo "
    "fibrilação atrial alterações alteração repolarização possível taquicardia anormal",
    "it": "e il gli della del con non è senza ritmo sinusale sinistro sinistra destro destra blocco branca onda onde "
    "asse fibrillazione atriale alterazioni ripolarizzazione possibile tachicardia anormale nei limiti",
    "pl": "i nie bez lub rytm zatokowy zatokowa migotanie przedsionków lewej prawej odnogi blok oś serca zmiany",
    "tr": "ve ile sinüs ritmi atriyal fibrilasyon sol sağ dal bloğu aks olmayan değişiklikleri",
}
_SCRIPTS = ("CYRILLIC", "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "GREEK", "ARABIC", "HEBREW", "THAI", "DEVANAGARI")
_SCRIPT_CODES = {
    "CYRILLIC": "und-Cyrl", "CJK": "zh", "HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko", "GREEK": "el",
    "ARABIC": "und-Arab", "HEBREW": "he", "THAI": "th", "DEVANAGARI": "und-Deva",
}  # fmt: skip
_LANGUAGES_OF = {
    word: [language for language, words in _WORDS.items() if word in words.split()]
    for words in _WORDS.values()
    for word in words.split()
}
_MOST_CHARACTERS = 2000  # a report's beginning is enough, however long a client made it
_WORD = re.compile(r"[^\W\d_]+")

NAMES = {
    "en": "English", "de": "German", "sv": "Swedish", "da": "Danish or Norwegian", "nl": "Dutch", "fr": "French",
    "es": "Spanish", "pt": "Portuguese", "it": "Italian", "pl": "Polish", "tr": "Turkish", "zh": "Chinese",
    "ja": "Japanese", "ko": "Korean", "el": "Greek", "he": "Hebrew", "th": "Thai", "und-Cyrl": "Cyrillic script",
    "und-Arab": "Arabic script", "und-Deva": "Devanagari script", UNKNOWN: "not determined",
}  # fmt: skip


def language_of(text: str) -> str:
    """BCP 47 code of the language of `NAMES` with most words in the text; `und` where two have as many, or none has
    any.

    A word counts by the number of languages that have it: half for each of two.
    """
    text = unicodedata.normalize("NFC", text[:_MOST_CHARACTERS])
    words = _WORD.findall(text.lower())
    votes = dict.fromkeys(_WORDS, 0.0)
    for word in words:
        for language in (found := _LANGUAGES_OF.get(word, [])):
            votes[language] += 1 / len(found)
    first, second = sorted(votes, key=lambda language: -votes[language])[:2]
    if votes[first] > votes[second]:
        return first
    return UNKNOWN if votes[first] else _by_script(text)


def _by_script(text: str) -> str:
    letters = [character for character in text if ord(character) > 0x36F and character.isalpha()]
    if 2 * len(letters) <= sum(character.isalpha() for character in text):
        return UNKNOWN
    names = [unicodedata.name(letter, "").split()[0] for letter in letters]
    if "HIRAGANA" in names or "KATAKANA" in names:  # Japanese is written with Chinese characters too
        return "ja"
    script = max(_SCRIPTS, key=names.count)
    return _SCRIPT_CODES[script] if script in names else UNKNOWN
