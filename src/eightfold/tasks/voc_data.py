"""Detection data as Pascal VOC has it: Annotations/ID.xml, JPEGImages/ID.jpg and ImageSets/Main/PART.txt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from eightfold.errors import ImageError, why_unread
from eightfold.tasks.boxed_images import BoxedImages, Objects, class_index

ANNOTATIONS, IMAGES, SETS = "Annotations", "JPEGImages", Path("ImageSets/Main")
# The first list that is there counts.
LISTS: Mapping[str, tuple[str, ...]] = {"train": ("trainval", "train"), "test": ("test", "val")}


def is_voc(folder: Path) -> bool:
    return (folder / ANNOTATIONS).is_dir() and (folder / SETS).is_dir()


def from_voc(folder: Path, part: str, labels: Sequence[str] = ()) -> BoxedImages:
    """One part ("train" or "test"); objects marked difficult count as crowds: found or not, they change no metric.

    Without `labels`, classes are the names in all annotations, in alphabetical order, which is that of VOC itself.
    Raises ImageError.
    """
    ids = _ids(folder, part)
    classes = tuple(labels) or _names(folder)
    trees = [_read(folder / ANNOTATIONS / f"{each}.xml") for each in ids]
    files = tuple(_image(folder, each, tree) for each, tree in zip(ids, trees, strict=True))
    objects = [
        _objects(folder / ANNOTATIONS / f"{each}.xml", tree, classes) for each, tree in zip(ids, trees, strict=True)
    ]
    return BoxedImages(files, None, classes, tuple(objects))


def _ids(folder: Path, part: str) -> tuple[str, ...]:
    lists = [folder / SETS / f"{name}.txt" for name in LISTS[part]]
    path = next((path for path in lists if path.is_file()), None)
    if path is None:
        raise ImageError(f"{folder / SETS} has no {part} images", allowed=" or ".join(path.name for path in lists))
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return tuple(line.split()[0] for line in lines if line.strip())


def _names(folder: Path) -> tuple[str, ...]:
    trees = (_read(path) for path in sorted((folder / ANNOTATIONS).glob("*.xml")))
    return tuple(sorted({each.findtext("name", "").strip() for tree in trees for each in tree.iter("object")}))


def _read(path: Path) -> ElementTree.Element:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities that name each other would fill the memory
            raise ImageError(f"{path} declares a document type", allowed="plain XML", remedy="remove the declaration")
        return ElementTree.fromstring(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"cannot read {path}: {why_unread(error)}", allowed="an annotation of Pascal VOC") from None
    except ElementTree.ParseError as error:
        raise ImageError(f"{path} is not XML ({error})", allowed="an annotation of Pascal VOC") from None


def _image(folder: Path, name: str, tree: ElementTree.Element) -> Path:
    stated = tree.findtext("filename", "").strip()
    named = folder / IMAGES / Path(stated).name
    return named if stated and named.is_file() else folder / IMAGES / f"{name}.jpg"


def _objects(path: Path, tree: ElementTree.Element, classes: Sequence[str]) -> Objects:
    """VOC counts pixels from 1 and includes the last one."""
    rows = []
    for each in tree.iter("object"):
        try:
            left, top, right, bottom = (
                float(each.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError:
            name = each.findtext("name", "")
            raise ImageError(
                f"{path}: the box of {name!r} is incomplete", allowed="bndbox with xmin, ymin, xmax and ymax"
            ) from None
        index = class_index(each.findtext("name", "").strip(), classes, path)
        rows.append(((left - 1, top - 1, right, bottom), index, each.findtext("difficult", "0").strip() == "1"))
    return Objects.of(rows)
