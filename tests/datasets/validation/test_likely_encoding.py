"""Texts in encodings of before are read as what they are; and one in UTF-8 that is damaged is none of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checked import checked

from modelforge.datasets.validation.likely_encoding import likely_encoding
from modelforge.datasets.validation.text_encoding import ENCODINGS

SENTENCES = {
    "cp1252": [
        "Café",
        "naïve – “quoted”",
        "Müller",
        "Grüße",
        "à",
        "été",
        "Où est la bibliothèque ? L’élève a été reçu à l’école.",
        "Die Straße führt über die Brücke nach Köln.",
        "El niño comió una manzana en el jardín. ¿Dónde está?",
        "A educação é um direito de todos os cidadãos. Não há exceção.",
        "Perché non è più così? La città è bella.",
        "Det er en smuk dag på øen, og børnene spiser æbler.",
        "Får jag köpa en öl på ön? Här är äpplen.",
        "it’s “fine” — 5 €",
        "l’été",
        "MÜNCHEN GRÜSST",
        "Señor",
        "coração",
        "São Paulo",
        "smørrebrød",
        "Ångström",
        "25 °C",
        "ÉCOLE PRIMAIRE",
        "Þetta er íslenska og hún er falleg.",
        "Zürich, Genève",
        "crème brûlée",
        "L'Œuvre",
        "«Très bien»",
        "Ähre",
        "Tromsø",
        "Ærø",
        "más",
        "Übung macht den Meister",
        "Vielen Dank für Ihre E-Mail",
        "100 £",
        "piñata",
    ],
    "cp1250": [
        "Zażółć gęślą jaźń",
        "Łódź",
        "Dziękuję bardzo, proszę wziąć książkę.",
        "Příliš žluťoučký kůň úpěl ďábelské ódy.",
        "Děkuji, jak se máte?",
        "Őszintén szólva, a fiúk nagyon erősek és hűségesek.",
        "źródło",
        "książka",
        "školství a věda",
    ],
    "iso8859_2": [
        "Zażółć gęślą jaźń, proszę wziąć książkę",
        "Łódź jest piękna, a Śląsk też.",
    ],
    "cp1251": [
        "Привет",
        "Привет, как дела? Это простой вопрос.",
        "Столица России — Москва.",
        "ПРИВЕТ МИР",
        "Київ — столиця України, її найбільше місто.",
        "да",
        "Вопрос: «Что это?»",
        "Ответ",
        "молоко",
        "Hello, мир",
    ],
    "koi8_r": [
        "Привет, как дела? Это простой вопрос.",
        "Привет",
        "Столица России Москва",
        "ПРИВЕТ МИР, КАК ДЕЛА",
    ],
    "cp1253": [
        "Ελλάδα",
        "Καλημέρα, τι κάνεις;",
        "Η Αθήνα είναι η πρωτεύουσα της Ελλάδας.",
        "και",
    ],
    "cp1254": [
        "Türkiye’nin başkenti Ankara’dır, şehir çok güzel.",
        "Işık",
        "İstanbul’da yaşıyorum",
        "teşekkür ederim, nasılsınız?",
        "güneş",
        "değil",
    ],
    "cp1255": [
        "שלום",
        "שלום עולם, מה שלומך היום?",
        "ירושלים היא בירת ישראל",
        "תודה רבה",
    ],
    "cp1256": [
        "مرحبا",
        "مرحبا بالعالم، كيف حالك؟",
        "القاهرة هي عاصمة مصر",
        "شكرا",
        "اللغة العربية",
    ],
    "cp932": [
        "こんにちは",
        "日本の首都はどこですか？東京です。",
        "東京",
        "ありがとう",
        "質問：空はなぜ青いですか。",
        "コンピュータ",
        "日本語",
    ],
    "euc_jp": [
        "こんにちは、世界。日本の首都はどこですか？",
        "ありがとうございます",
    ],
    "gb18030": [
        "你好",
        "中国的首都是哪里？北京。",
        "请把这句话翻译成英文。",
        "为什么天空是蓝色的？因为空气散射蓝光。",
        "北京",
        "谢谢",
        "回答问题",
        "来",
        "我来自上海",
    ],
    "big5": [
        "你好",
        "台灣的首都在哪裡？臺北。",
        "請把這句話翻譯成英文。",
        "為什麼天空是藍色的？",
        "謝謝",
        "回答問題",
    ],
    "cp949": [
        "안녕하세요",
        "한국의 수도는 어디입니까? 서울입니다.",
        "감사합니다",
        "하늘은 왜 파란가요?",
        "서울",
        "질문에 답하세요",
    ],
    "mac_roman": [
        "Où est la bibliothèque ? L’élève a été reçu",
        "Café",
    ],
    "cp850": [
        "Die Straße führt über die Brücke nach Köln.",
        "Müller",
        "Café",
    ],
}
EACH = [(encoding, text) for encoding, texts in SENTENCES.items() for text in texts]


@pytest.mark.parametrize(("encoding", "text"), EACH)
@pytest.mark.parametrize("record", ['{"input": "%s", "output": "b"}\n', "%s", '"%s\\nand more",x\n'])
def test_a_text_is_read_in_its_encoding(encoding: str, text: str, record: str) -> None:
    content = (record % text).encode(encoding)
    found = likely_encoding(content)
    assert found is not None
    assert content.decode(found) == record % text


@pytest.mark.parametrize("encoding", SENTENCES)
def test_the_whole_of_a_language_shows_its_encoding(encoding: str) -> None:
    texts = SENTENCES[encoding]
    content = "".join(f'{{"input": "Number {at}: {text}", "output": "ok"}}\n' for at, text in enumerate(texts))
    found, records = checked(content.encode(encoding))
    assert (found.report.errors, found.num_examples) == ((), len(texts))
    assert records.decode() == content
    (warning,) = found.report.warnings
    assert warning.message.startswith(f"The file was read as {ENCODINGS[encoding]}")


DAMAGED = [
    b"Caf\xc3",
    b"na\xc3 ve",
    b"it\xe2\x80s",
    b"\xe2\x80",
    b"a\xf0\x9f\x98 b",
    "日本語".encode()[:-1],
    "Привет".encode()[:-1],
    "Über die Brücke".encode() + b"\xfc",
    "café crème".encode().replace(b"\xa9", b""),
    b"\xc0\x80",
]


@pytest.mark.parametrize("text", DAMAGED)
def test_utf8_that_is_damaged_stays_an_error(text: bytes) -> None:
    found, _ = checked(b'{"input": "%b", "output": "b"}\n' % text)
    (error,) = found.report.errors
    assert error.message.startswith("The line is not UTF-8 (byte ")
    assert "looks like" not in error.message


@given(st.binary(max_size=200))
def test_whatever_the_bytes_are_a_guess_is_one_that_is_known(data: bytes) -> None:
    found = likely_encoding(data)
    assert found is None or found in ENCODINGS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ["plain", "一丁七 你好，北京。" * 20, "Привет", "Āā"])
def test_wide_encodings_are_seen_without_a_mark(encoding: str, text: str) -> None:
    lines = "".join(f'{{"input": "{at} {text}", "output": "b"}}\n' for at in range(3))
    found, records = checked(lines.encode(encoding))
    assert found.report.errors == ()
    assert records.decode() == lines


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("cp932", "これは予定表"), ("cp932", "能力と機能です"), ("cp1252", "Müller"), ("big5", "請問功能與許可")],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_the_layout_of_a_file_is_that_of_its_text(encoding: str, text: str, indent: int | None) -> None:
    record = {"input": text, "output": text}
    for whole in ([record] * 2, {"author": text, "data": [record] * 2}):
        content = json.dumps(whole, indent=indent, ensure_ascii=False).encode(encoding)
        for name in ("a.json", "a.jsonl"):
            found, records = checked(content, name)
            assert (found.report.errors, found.container) == ((), "json")
            assert [json.loads(line) for line in records.splitlines()] == [record] * 2
