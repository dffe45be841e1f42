"""Why edge does not do what a person asks, in the languages of the floor."""

from collections.abc import Iterable, Sequence

from edge.engine.words import english, texts, why_lost
from edge.language.program import Texts


class Refused(Exception):
    """What a person asked cannot be done; `say` tells them why. `text` is for a technician, where that says more."""

    def __init__(self, say: Texts, text: str = "") -> None:
        super().__init__(text or say["en"])
        self.say = say
        self.text = text or say["en"]


# --- the state of things ---------------------------------------------------------------------------------------------

TOO_LATE = texts(
    "the control loop was late: this came too late and was not done",
    "la boucle de commande avait du retard : ceci est arrivé trop tard et n'a pas été fait",
    "تأخّرت حلقة التحكم: وصل هذا الأمر متأخرًا ولم يُنفَّذ",
)
NOT_RUNNING = texts(
    "the control loop is not running: nothing was done; see the log of edge",
    "la boucle de commande est à l'arrêt : rien n'a été fait ; voyez le journal de edge",
    "حلقة التحكم لا تعمل: لم يُنفَّذ شيء؛ انظر سجلّ edge",
)
NO_ANSWER = texts(
    "the control loop has not answered in time: what it has not done by now it will not do; look at the state",
    "la boucle de commande n'a pas répondu à temps : ce qui n'est pas fait ne le sera plus ; regardez l'état",
    "لم تستجب حلقة التحكم في الوقت المحدد: ما لم يُنفَّذ حتى الآن لن يُنفَّذ؛ تحقّق من الحالة",
)
NO_ALARM = texts(
    "there is no such alarm to acknowledge", "il n'y a pas de telle alarme à acquitter", "لا يوجد إنذار كهذا للإقرار به"
)
NOT_THERE = texts("there is no such alarm", "il n'y a pas de telle alarme", "لا يوجد إنذار كهذا")
NOT_SHELVED = texts("this alarm is not shelved", "cette alarme n'est pas mise de côté", "هذا الإنذار غير مؤجَّل")
SHELVE_REASON = texts(
    "say why the alarm is shelved", "dites pourquoi l'alarme est mise de côté", "اذكر سبب تأجيل الإنذار"
)
ENGINEER_ONLY = texts(
    "only an engineer may answer this question",
    "seul un ingénieur peut répondre à cette question",
    "لا يجيب عن هذا السؤال إلا مهندس",
)
QUESTION_CLOSED = texts("this question is not open", "cette question n'est pas ouverte", "هذا السؤال غير مفتوح")

NOT_WAITING = texts(
    "this step does not wait to be confirmed now",
    "cette étape n'attend pas de confirmation maintenant",
    "هذه الخطوة لا تنتظر تأكيدًا الآن",
)


def shelve_time(hours: int) -> Texts:
    return texts(
        f"an alarm is shelved for a time of at most {hours} h",
        f"une alarme est mise de côté pour {hours} h au plus",
        f"يُؤجَّل الإنذار لمدة {hours} ساعة على الأكثر",
    )


def no_recipe(name: str) -> Texts:
    return texts(f"there is no recipe {name}", f"il n'y a pas de recette {name}", f"لا توجد وصفة {name}")


def recipe_too_long(recipe: str) -> Texts:
    return texts(
        f"the recipe {recipe} is too long to be changed while the loop runs: restart edge",
        f"la recette {recipe} est trop longue pour être changée en marche : redémarrez edge",
        f"الوصفة {recipe} أطول من أن تُغيَّر أثناء التشغيل: أعد تشغيل edge",
    )


def no_batch(name: str) -> Texts:
    return texts(f"no batch {name} is running here", f"aucun lot {name} n'est en cours ici", f"لا توجد دفعة {name} هنا")


def no_tag(name: str) -> Texts:
    return texts(f"there is no tag {name}", f"il n'y a pas de variable {name}", f"لا يوجد متغيّر {name}")


def batch_exists(name: str) -> Texts:
    return texts(f"there is a batch {name} already", f"il y a déjà un lot {name}", f"توجد دفعة {name} من قبل")


def too_many_batches(most: int) -> Texts:
    return texts(
        f"{most} batches are here already: reset those that have ended",
        f"il y a déjà {most} lots : réinitialisez ceux qui sont finis",
        f"توجد {most} دفعة من قبل: أعد ضبط الدفعات المنتهية",
    )


def unit_used(unit: str, batch: str) -> Texts:
    return texts(
        f"{unit} is used by batch {batch}", f"{unit} est utilisé par le lot {batch}", f"{unit} مستخدَم في الدفعة {batch}"
    )


def unit_awaited(unit: str, batch: str) -> Texts:
    return texts(f"batch {batch} waits for {unit}", f"le lot {batch} attend {unit}", f"الدفعة {batch} تنتظر {unit}")


def tag_owned(tag: str, batch: str, recipe: str) -> Texts:
    return texts(
        f"{tag} belongs to batch {batch} ({recipe}) while it runs",
        f"{tag} appartient au lot {batch} ({recipe}) tant qu'il est en cours",
        f"{tag} تابع للدفعة {batch} ({recipe}) ما دامت قيد التنفيذ",
    )


def no_mode(mode: str, modes: Sequence[str]) -> Texts:
    names = ", ".join(modes)
    return texts(
        f"there is no mode `{mode}`: choose {names}",
        f"il n'y a pas de mode {mode} : choisissez {names}",
        f"لا يوجد وضع {mode}: اختر {names}",
    )


def not_held_yet(batch: str) -> Texts:
    return texts(
        f"batch {batch} is not held yet: its outputs can be set by hand when it is",
        f"le lot {batch} n'est pas encore maintenu : ses sorties se règlent à la main quand il l'est",
        f"الدفعة {batch} لم تُعلَّق بعد: تُضبط مخارجها يدويًا بعد تعليقها",
    )


def device_absent(device: str, status: int) -> Texts:
    why = why_lost(status)
    return texts(
        f"{device} is not there: {why['en']}", f"{device} est absent : {why['fr']}", f"{device} غير موجود: {why['ar']}"
    )


def no_good_value(tags: Iterable[str]) -> Texts:
    names = ", ".join(tags)
    return texts(f"no good value from {names}", f"pas de valeur valide de {names}", f"لا توجد قيمة صالحة من {names}")


def interlock_stands(say: Texts, condition: str) -> Texts:
    en = english(say)
    return texts(
        f"an interlock stands: {en} ({condition})",
        f"un verrouillage est actif : {say.get('fr', en)} ({condition})",
        f"شرط أمان قائم: {say.get('ar', en)} ({condition})",
    )


def not_permitted(missing: Sequence[tuple[Texts, str]]) -> Texts:
    """Permissives that are missing, all of them: each with its text and its condition."""
    named = {
        language: "; ".join(f"{say.get(language) or english(say)} ({condition})" for say, condition in missing)
        for language in ("en", "fr", "ar")
    }
    return texts(
        f"this must be first: {named['en']}",
        f"il faut d'abord : {named['fr']}",
        f"يجب أولًا: {named['ar']}",
    )


def not_possible(batch: str, state: str, do: str, possible: Sequence[str]) -> Texts:
    return texts(
        f"batch {batch} is {state}: {do} is not possible now (possible: {', '.join(possible) or 'nothing'})",
        f"lot {batch} : cette commande n'est pas possible dans son état actuel",
        f"الدفعة {batch}: هذا الأمر غير ممكن في حالتها الحالية",
    )


# --- a value ---------------------------------------------------------------------------------------------------------

VALUE_NEEDED = texts("a value is needed", "il faut une valeur", "القيمة مطلوبة")
TEXT_NEEDED = texts("a text is needed", "il faut un texte", "النص مطلوب")
CONFIRM = texts(
    "this question is to be confirmed: answer true", "cette question est à confirmer", "هذا السؤال يحتاج إلى تأكيد"
)
IS_BOOL = texts("it is true or false", "c'est vrai ou faux", "القيمة صح أو خطأ")
IS_NUMBER = texts("it is a number", "c'est un nombre", "القيمة رقم")
IS_WHOLE = texts("it is a whole number", "c'est un nombre entier", "القيمة رقم صحيح")
IS_TEXT = texts("it is a text", "c'est un texte", "القيمة نص")


def read_only(tag: str) -> Texts:
    return texts(f"{tag} can only be read", f"{tag} est en lecture seule", f"{tag} للقراءة فقط")


def heartbeat(tag: str) -> Texts:
    return texts(
        f"{tag} is a heartbeat: edge counts it", f"{tag} est un signe de vie : edge le compte", f"{tag} نبضة يعدّها edge"
    )


def span(low: float | None, high: float | None, unit: str) -> Texts:
    """A range; empty texts for none."""
    if low is not None and high is not None:
        ends = f"{low:g}", f"{high:g} {unit}".rstrip()
        return texts("it goes from {} to {}".format(*ends), "de {} à {}".format(*ends), "من {} إلى {}".format(*ends))
    if low is not None:
        end = f"{low:g} {unit}".rstrip()
        return texts(f"it is at least {end}", f"au moins {end}", f"{end} على الأقل")
    if high is not None:
        end = f"{high:g} {unit}".rstrip()
        return texts(f"it is at most {end}", f"au plus {end}", f"{end} على الأكثر")
    return texts("", "", "")


def longest(size: int) -> Texts:
    return texts(f"it has at most {size} bytes", f"{size} octets au plus", f"{size} بايت على الأكثر")


def too_long(most: int) -> Texts:
    return texts(
        f"a text has at most {most} characters", f"un texte a {most} caractères au plus", f"النص {most} حرف على الأكثر"
    )


def no_parameter(recipe: str, name: str, meant: str) -> Texts:
    return texts(
        f"{recipe} has no parameter `{name}`{meant}",
        f"{recipe} n'a pas de paramètre {name}",
        f"ليس في {recipe} معامل {name}",
    )


def parameter_needed(name: str, limits: Texts) -> Texts:
    colon = ": " if limits["en"] else ""
    return texts(
        f"{name} is needed{colon}{limits['en']}",
        f"{name} est nécessaire{colon and ' : '}{limits['fr']}",
        f"{name} مطلوب{colon}{limits['ar']}",
    )


def parameter_wrong(name: str, why: Texts) -> Texts:
    return texts(f"{name}: {why['en']}", f"{name} : {why['fr']}", f"{name}: {why['ar']}")


def not_bool(value: object) -> Texts:
    return texts(f"{value} is neither true nor false", f"{value} n'est ni vrai ni faux", f"{value} ليس صحًّا ولا خطأً")


def not_number(value: object) -> Texts:
    if value is None:
        return texts("nothing is not a number", "il faut un nombre", "الرقم مطلوب")
    return texts(f"{value} is not a number", f"{value} n'est pas un nombre", f"{value} ليس رقمًا")


def outside(value: float, low: float | None, high: float | None, unit: str) -> Texts:
    shown, limits = f"{value:g} {unit}".rstrip(), span(low, high, unit)
    return texts(
        f"{shown} is out of range, {limits['en']}",
        f"{shown} est hors limites : {limits['fr']}",
        f"{shown} خارج النطاق: {limits['ar']}",
    )


def none_of(value: object, choices: Iterable[str]) -> Texts:
    names = ", ".join(choices)
    return texts(f"{value} is none of {names}", f"{value} n'est pas parmi {names}", f"{value} ليس من {names}")


def answer_one_of(answers: Iterable[str]) -> Texts:
    names = ", ".join(answers)
    return texts(f"answer one of {names}", f"répondez par {names}", f"أجب بأحد هذه: {names}")


def together(several: Iterable[Texts]) -> Texts:
    """Several refusals as one."""
    listed = list(several)
    return {language: "; ".join(one[language] for one in listed) for language in ("en", "fr", "ar")}
