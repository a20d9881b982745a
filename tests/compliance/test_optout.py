"""Plain words that mean "do not call again", and words that only sound like it.

Knows sentences as people say them and transcripts write them, no pattern.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.compliance import OPT_OUT_KEY, asks_to_stop

ENGLISH = [
    "Stop calling me.",
    "Please stop calling",
    "Stop calling this number, please.",
    "Take me off your list",
    "take us off of your calling list",
    "Please take my name off your list",
    "remove me from your list",
    "Could you remove this number from your database?",
    "Put me on your do not call list",
    "Add my number to the do-not-call list",
    "Do not call me again",
    "Don't call me anymore.",
    "Don't ever call here again",
    "Never call me again",
    "don't call this number again",
    "Lose my number",
    "Opt out",
    "I want to opt out",
    "I'd like to opt out please",
    "Unsubscribe me",
    "Delete my number",
    "Quit calling me!",
    "I said stop",
    "Stop.",
    "Stop, stop, stop!",
    "STOP",
    "Please stop",
    "Okay stop it",
    "No more calls",
    "I don't want any more calls",
    "I don't want you calling me",
    "I do not wish to be called",
    "I do not want to receive these calls",
    "I don't want to be contacted again",
    "I revoke my consent",
    "I withdraw my permission",
    "You need to stop calling",
    "Can you stop calling me?",
    "I asked you to stop calling",
    "I told you to stop calling me already",
    "Leave me alone",
    "Stop bothering me",
    "stop harassing us",
    "Who is this? Don't call me again.",
    "Hello? Yes. Take me off the list.",
    "Don’t call me anymore",
    "I don't want to hear from you again",
    "don't contact me again",
    "How do I opt out?",
    "If you don't stop calling me I'll sue",
    "Why don't you stop calling me",
    "Why do you keep calling? Stop it.",
    "Don't call back",
    "don't call me back",
    "Don't you ever call me again",
    "Don't call us no more",
    "I don't want these calls anymore",
    "Please don't call me",
    "Don't call here",
    "Cease all calls",
    "stop with the calls",
    "get me off this list",
    "Never call this phone again",
]

NOT_ENGLISH = [
    "Don't stop calling my brother",
    "Please don't stop calling",
    "My ex won't stop calling me",
    "He just can't stop calling people",
    "The bus stop is on Main Street",
    "Don't call me before nine",
    "Don't call me sir",
    "Don't call me until five",
    "Call me back later",
    "Did you stop calling Fred?",
    "Take me off hold",
    "Take me off speaker",
    "Don't call me Bob",
    "Yes",
    "No",
    "I'm not interested in the red one, the blue please",
    "Can you call again tomorrow?",
    "I don't want to opt out",
    "I never got your call",
    "What's your calling list price?",
    "Remove the second item from my order",
    "I need to stop by the store",
    "We should stop here for today",
    "Take the number ten bus",
    "I'll call my doctor",
    "Can you put me on the list for Tuesday?",
    "Don't call my wife, call me",
    "Stop calling me sir",
    "",
    "...",
    "I have a list of questions",
    "They never call back",
    "My doctor never calls me back",
    "Could you add me to your list",
    "I don't have any more questions",
    "Leave a message",
    "Take this number down",
    "How did you get my number?",
    "If I stop by the office, will you be there?",
]

OTHER_LANGUAGES = {
    "es": (
        [
            "Deje de llamarme",
            "No me llame más",
            "No me vuelva a llamar",
            "Quíteme de su lista",
            "Bórreme de la lista",
            "No quiero que me llamen",
            "No quiero más llamadas",
            "Por favor, no llamen más",
            "Pare",
            "Basta ya",
            "Elimine mi número",
            "No vuelvan a llamar",
            "déjeme en paz",
            "stop calling me",
            "No me llamen nunca más",
        ],
        [
            "No deje de llamarme",
            "No me llame antes de las nueve",
            "Llámeme mañana",
            "La parada del autobús",
            "Sí",
            "Quiero que me llame mañana",
            "Para mañana está bien",
            "Es para mi hermano",
            "No me llame señora",
        ],
    ),
    "fr": (
        [
            "Arrêtez de m'appeler",
            "Arrêtez d'appeler",
            "Ne m'appelez plus",
            "Ne me rappelez plus jamais",
            "Je ne veux plus être appelé",
            "Retirez-moi de votre liste",
            "Supprimez mon numéro",
            "Je ne veux plus d'appels",
            "Stop",
            "Laissez-moi tranquille",
            "Je ne veux plus recevoir vos appels",
            "Cessez de me contacter",
            "Je ne veux plus que vous m'appeliez",
        ],
        [
            "N'arrêtez pas de m'appeler",
            "Appelez-moi demain",
            "L'arrêt de bus est là",
            "Je ne veux plus de café",
            "Oui",
            "Je vous rappelle plus tard",
            "Ne me rappelez pas avant midi",
        ],
    ),
    "de": (
        [
            "Rufen Sie mich nicht mehr an",
            "Rufen Sie hier nie wieder an",
            "Hören Sie auf, mich anzurufen",
            "Ich möchte nicht mehr angerufen werden",
            "Streichen Sie mich von Ihrer Liste",
            "Löschen Sie meine Nummer",
            "Keine weiteren Anrufe",
            "Stopp!",
            "Lassen Sie mich in Ruhe",
            "Bitte rufen Sie nicht mehr an",
            "Nehmen Sie mich von der Liste",
            "Hören Sie auf",
        ],
        [
            "Rufen Sie mich nicht vor neun Uhr an",
            "Rufen Sie mich morgen an",
            "Die Haltestelle ist dort",
            "Ja",
            "Ich habe keine Fragen mehr",
            "Ich kann gerade nicht, rufen Sie später wieder an",
            "Lassen Sie mich in einer Stunde wissen",
        ],
    ),
}


@pytest.mark.parametrize("text", ENGLISH)
def test_a_wish_to_be_left_alone_is_heard(text: str) -> None:
    assert asks_to_stop(text, "en-US")


@pytest.mark.parametrize("text", NOT_ENGLISH)
def test_what_only_sounds_like_it_is_not_taken_for_it(text: str) -> None:
    assert not asks_to_stop(text, "en-US")


@pytest.mark.parametrize(
    ("language", "text"), [(name, text) for name, (wishes, _) in OTHER_LANGUAGES.items() for text in wishes]
)
def test_it_is_heard_in_the_language_of_the_call(language: str, text: str) -> None:
    assert asks_to_stop(text, language)


@pytest.mark.parametrize(
    ("language", "text"), [(name, text) for name, (_, others) in OTHER_LANGUAGES.items() for text in others]
)
def test_in_other_languages_too_not_everything_is_a_wish_to_stop(language: str, text: str) -> None:
    assert not asks_to_stop(text, language)


@pytest.mark.parametrize("language", ["es", "fr-CA", "de", "EN"])
def test_english_is_heard_whatever_the_language(language: str) -> None:
    assert asks_to_stop("Stop calling me", language)


@pytest.mark.parametrize("language", ["", "xx", "pt-BR"])
@pytest.mark.parametrize("text", ["Stop calling me", "No me llame más", "Ne m'appelez plus"])
def test_in_a_language_without_phrases_all_others_are_tried(language: str, text: str) -> None:
    assert asks_to_stop(text, language)


@given(
    text=st.sampled_from(ENGLISH),
    before=st.sampled_from(["", "Hello? ", "Yes, this is he. ", "Listen! "]),
    after=st.sampled_from(["", " Goodbye.", " Thank you!", "\n"]),
    shout=st.booleans(),
)
def test_a_wish_is_heard_among_other_sentences_and_in_any_case(
    text: str, before: str, after: str, shout: bool
) -> None:
    sentence = text if text[-1] in ".!?" else f"{text}."
    spoken = f"{before}{sentence}{after}"
    assert asks_to_stop(spoken.upper() if shout else spoken, "en")


@given(text=st.text(max_size=300), language=st.sampled_from(["en", "es", "fr", "de", "xx", ""]))
def test_any_text_gets_an_answer(text: str, language: str) -> None:
    assert asks_to_stop(text, language) in (True, False)


def test_a_long_monologue_is_read_without_delay() -> None:
    # Patterns have no nested repetition: the time is proportional to the text.
    assert not asks_to_stop("do not take me to the list of " * 20_000, "en")


def test_the_key_is_nine() -> None:
    assert OPT_OUT_KEY == "9"


# ---- phrases of an agent's own ------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["Good-bye Acme!", "well, goodbye acme then", "Yes. GOODBYE, ACME?"])
def test_an_agent_may_have_phrases_of_its_own(said: str) -> None:
    own = ("goodbye Acme", "good bye, acme")
    assert asks_to_stop(said, "en-US", own)
    assert not asks_to_stop(said, "en-US")


@pytest.mark.parametrize("said", ["Goodbye.", "Acme goodbye", "Goodbye. Acme?", "goodbye acmes"])
def test_a_phrase_is_its_words_in_their_order_and_nothing_less(said: str) -> None:
    assert not asks_to_stop(said, "en", ("goodbye Acme",))


def test_the_usual_words_are_heard_beside_them() -> None:
    assert asks_to_stop("Stop calling me.", "de-DE", ("goodbye Acme",))
