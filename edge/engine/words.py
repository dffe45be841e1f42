"""What edge says to operators by itself, in the languages of the floor: alarms, causes of states, reasons of devices.

The English text of a driver is a technician's detail; what an operator reads is made of its OPC UA StatusCode.
"""

from collections.abc import Sequence

from drivers.value import (
    BAD,
    BAD_ACCESS_DENIED,
    BAD_CERTIFICATE_INVALID,
    BAD_CERTIFICATE_TIME_INVALID,
    BAD_CERTIFICATE_UNTRUSTED,
    BAD_CERTIFICATE_URI_INVALID,
    BAD_COMMUNICATION,
    BAD_CONFIGURATION,
    BAD_CONNECTION_CLOSED,
    BAD_CONNECTION_REJECTED,
    BAD_DEVICE_FAILURE,
    BAD_IDENTITY_TOKEN_INVALID,
    BAD_IDENTITY_TOKEN_REJECTED,
    BAD_MAX_CONNECTIONS,
    BAD_NO_COMMUNICATION,
    BAD_NODE_UNKNOWN,
    BAD_NOT_CONNECTED,
    BAD_NOT_READABLE,
    BAD_NOT_SUPPORTED,
    BAD_NOT_WRITABLE,
    BAD_OUT_OF_RANGE,
    BAD_SECURITY_CHECKS_FAILED,
    BAD_SECURITY_MODE_REJECTED,
    BAD_SECURITY_POLICY_REJECTED,
    BAD_SESSION_INVALID,
    BAD_TIMEOUT,
    BAD_TOO_MANY_SESSIONS,
    BAD_TYPE_MISMATCH,
    BAD_WAITING,
    Value,
    display,
)
from edge.language.cell import Tag
from edge.language.program import Texts
from edge.messages import DeviceReport


def texts(en: str, fr: str, ar: str) -> Texts:
    return {"en": en, "fr": fr, "ar": ar}


def english(say: Texts) -> str:
    """A text in English, or in whatever language the engineer has given it."""
    return say.get("en") or next(iter(say.values()), "")


# --- why a device is lost, or refuses --------------------------------------------------------------------------------

_REFUSED = texts("refused by the device", "refusé par l'appareil", "رفضه الجهاز")
_USER = texts("user or password refused", "utilisateur ou mot de passe refusé", "رُفض المستخدم أو كلمة المرور")
_CERTIFICATE = texts("certificate refused", "certificat refusé", "رُفضت الشهادة")
_SECURITY = texts("security setting refused", "réglage de sécurité refusé", "رُفض إعداد الأمان")
_FULL = texts("no connection free", "plus de connexion libre", "لا يوجد اتصال متاح")
_CLOSED = texts("connection closed by the device", "connexion fermée par l'appareil", "أغلق الجهاز الاتصال")
_REASONS = {
    BAD: _REFUSED,
    BAD_ACCESS_DENIED: texts("not permitted", "non autorisé", "غير مسموح"),
    BAD_CERTIFICATE_INVALID: _CERTIFICATE,
    BAD_CERTIFICATE_TIME_INVALID: texts("certificate out of date", "certificat périmé", "الشهادة منتهية الصلاحية"),
    BAD_CERTIFICATE_UNTRUSTED: _CERTIFICATE,
    BAD_CERTIFICATE_URI_INVALID: _CERTIFICATE,
    BAD_COMMUNICATION: texts("communication error", "erreur de communication", "خطأ في الاتصال"),
    BAD_CONFIGURATION: texts("wrong settings", "réglages incorrects", "إعدادات غير صحيحة"),
    BAD_CONNECTION_CLOSED: _CLOSED,
    BAD_CONNECTION_REJECTED: texts("connection refused", "connexion refusée", "رُفض الاتصال"),
    BAD_DEVICE_FAILURE: texts("device failure", "appareil en défaut", "عطل في الجهاز"),
    BAD_IDENTITY_TOKEN_INVALID: _USER,
    BAD_IDENTITY_TOKEN_REJECTED: _USER,
    BAD_MAX_CONNECTIONS: _FULL,
    BAD_NO_COMMUNICATION: texts("cannot be reached", "injoignable", "تعذّر الوصول إليه"),
    BAD_NODE_UNKNOWN: texts(
        "the device has no such address", "adresse inconnue de l'appareil", "لا يوجد هذا العنوان في الجهاز"
    ),
    BAD_NOT_CONNECTED: texts("not connected", "non connecté", "غير متصل"),
    BAD_NOT_READABLE: texts("reading is not permitted", "lecture non autorisée", "القراءة غير مسموحة"),
    BAD_NOT_SUPPORTED: texts("the device cannot do this", "non pris en charge par l'appareil", "لا يدعمه الجهاز"),
    BAD_NOT_WRITABLE: texts("setting is not permitted", "écriture non autorisée", "الضبط غير مسموح"),
    BAD_OUT_OF_RANGE: texts("value out of range", "valeur hors limites", "القيمة خارج النطاق"),
    BAD_SECURITY_CHECKS_FAILED: _CERTIFICATE,
    BAD_SECURITY_MODE_REJECTED: _SECURITY,
    BAD_SECURITY_POLICY_REJECTED: _SECURITY,
    BAD_SESSION_INVALID: _CLOSED,
    BAD_TIMEOUT: texts("no answer in time", "pas de réponse à temps", "لا ردّ في الوقت المحدد"),
    BAD_TOO_MANY_SESSIONS: _FULL,
    BAD_TYPE_MISMATCH: texts("the device has another type there", "autre type dans l'appareil", "نوع آخر في الجهاز"),
    BAD_WAITING: texts("not ready yet", "pas encore prêt", "ليس جاهزًا بعد"),
}


def reason(status: int) -> Texts:
    """Why a tag cannot be used, from its StatusCode."""
    return _REASONS.get(status & 0xFFFF_0000, _REFUSED)


def why_lost(status: int) -> Texts:
    """Why a device cannot be used: BadUserAccessDenied means the user of the whole session here."""
    return _USER if status == BAD_ACCESS_DENIED else reason(status)


def detail(report: DeviceReport) -> str:
    """The driver's own words, for a technician."""
    return f"{report.text} ({report.hint})" if report.hint else report.text


# --- alarms ----------------------------------------------------------------------------------------------------------


def device_lost(device: str, tag: str, status: int) -> Texts:
    about, why = f" ({tag})" if tag else "", why_lost(status)
    return texts(
        f"{device} is lost{about}: {why['en']}",
        f"{device} est perdu{about} : {why['fr']}",
        f"انقطع الاتصال مع {device}{about}: {why['ar']}",
    )


def some(names: Sequence[str]) -> Texts:
    """Things by their names, where they are many by the first one's and how many more there are."""
    first, more = names[0], len(names) - 1
    if more == 0:
        return texts(first, first, first)
    return texts(f"{first} and {more} more", f"{first} et {more} de plus", f"{first} و{more} غيره")


def tags_refused(tags: Sequence[str], status: int, *, write: bool) -> Texts:
    why, what = reason(status), some(tags)
    if write:
        return texts(
            f"{what['en']} could not be set: {why['en']}",
            f"{what['fr']} : réglage impossible : {why['fr']}",
            f"تعذّر ضبط {what['ar']}: {why['ar']}",
        )
    return texts(
        f"{what['en']} cannot be read: {why['en']}",
        f"{what['fr']} : lecture impossible : {why['fr']}",
        f"تعذّرت قراءة {what['ar']}: {why['ar']}",
    )


def value_refused(tag: str, value: object, wanted: Texts) -> Texts:
    return texts(
        f"{tag} may not be set to {value}: {wanted['en']}",
        f"{tag} ne peut pas être réglé à {value} : {wanted['fr']}",
        f"لا يجوز ضبط {tag} على {value}: {wanted['ar']}",
    )


def timed_out(step: str, condition: str) -> Texts:
    what = f" ({condition})" if condition else ""
    return texts(
        f"step {step} took too long{what}",
        f"l'étape {step} a duré trop longtemps{what}",
        f"استغرقت الخطوة {step} وقتًا أطول من المسموح{what}",
    )


def no_value(step: str, tags: str) -> Texts:
    """`tags` have no good value; where there are none of them it is a calculation that gives nothing."""
    if not tags:
        return texts(
            f"step {step} waits: a calculation gives no value (a division by zero?)",
            f"l'étape {step} attend : un calcul ne donne aucune valeur (une division par zéro ?)",
            f"الخطوة {step} تنتظر: عملية حسابية لا تعطي قيمة (قسمة على صفر؟)",
        )
    return texts(
        f"step {step} waits: no good value of {tags}",
        f"l'étape {step} attend : pas de valeur valide de {tags}",
        f"الخطوة {step} تنتظر: لا توجد قيمة صالحة لـ {tags}",
    )


def handler_timed_out(name: str) -> Texts:
    """`name` is that of the handler of `on`."""
    return texts(
        f"the steps of `on: {name}` took too long",
        f"les étapes de `on: {name}` ont duré trop longtemps",
        f"استغرقت خطوات `on: {name}` وقتًا أطول من المسموح",
    )


def reads_back(tag: Tag, value: Value | None, level: Value | None) -> Texts:
    """An output that is not as it is set."""
    is_ = "?" if value is None else display(value, tag.unit, 4)
    set_ = "?" if level is None else display(level, tag.unit, 4)
    return texts(
        f"{tag.name} is {is_}, set to {set_}",
        f"{tag.name} vaut {is_}, réglé à {set_}",
        f"{tag.name} قيمته {is_} والمطلوب {set_}",
    )


def expects(step: str, condition: str) -> Texts:
    return texts(
        f"step {step} expects {condition}", f"l'étape {step} attend {condition}", f"الخطوة {step} تتوقع {condition}"
    )


def differs(what: Sequence[Texts]) -> Texts:
    """Why a restart waits: the plant is not as the batch left it."""
    en, fr, ar = ("; ".join(one[language] for one in what) for language in ("en", "fr", "ar"))
    return texts(f"the restart waits: {en}", f"le redémarrage attend : {fr}", f"إعادة التشغيل تنتظر: {ar}")


def no_rate(tag: str) -> Texts:
    return texts(
        f"{tag} goes nowhere: the rate of its ramp is not more than 0",
        f"{tag} ne bouge pas : la vitesse de sa rampe n'est pas supérieure à 0",
        f"{tag} لا يتحرك: سرعة المنحدر ليست أكبر من 0",
    )


def phase_failed(phase: str) -> Texts:
    return texts(f"{phase} failed", f"{phase} a échoué", f"فشل {phase}")


def phase_held(phase: str) -> Texts:
    """The machine itself has held it."""
    return texts(
        f"{phase} is held at the machine", f"{phase} est mis en attente à la machine", f"{phase} معلّق عند الآلة"
    )


def phase_ended(phase: str) -> Texts:
    """The machine itself has stopped or aborted it."""
    return texts(f"{phase} was stopped at the machine", f"{phase} a été arrêté à la machine", f"أُوقف {phase} عند الآلة")


_LATE = {
    "reset": ("is not ready after its reset", "n'est pas prêt après sa réinitialisation", "ليس جاهزًا بعد إعادة الضبط"),
    "start": ("has not started in time", "n'a pas démarré à temps", "لم يبدأ في الوقت المحدد"),
    "hold": (
        "has not said in time that it is held",
        "n'a pas confirmé sa mise en attente",
        "لم يؤكّد التعليق في الوقت المحدد",
    ),
    "restart": ("has not restarted in time", "n'a pas redémarré à temps", "لم يُستأنف في الوقت المحدد"),
    "stop": (
        "has not said in time that it has stopped",
        "n'a pas confirmé son arrêt",
        "لم يؤكّد التوقف في الوقت المحدد",
    ),
    "abort": (
        "has not said in time that it was aborted",
        "n'a pas confirmé son abandon",
        "لم يؤكّد الإلغاء في الوقت المحدد",
    ),
}


def phase_late(phase: str, command: str) -> Texts:
    """What was commanded has not happened within its limit."""
    en, fr, ar = _LATE[command]
    return texts(f"{phase} {en}", f"{phase} {fr}", f"{phase} {ar}")


def deadlock(ring: Sequence[str], units: dict[str, list[str]]) -> Texts:
    """Batches that wait for each other; the first one is stopped, so that the others go on."""
    who = ", ".join(f"{name} ({', '.join(units[name])})" for name in ring)
    return texts(
        f"batches wait for each other's units: {who}; {ring[0]} is stopped",
        f"des lots s'attendent mutuellement : {who} ; {ring[0]} est arrêté",
        f"دفعات تنتظر وحدات بعضها بعضًا: {who}؛ تُوقَف {ring[0]}",
    )


def interlock_unknown(condition: str, tags: str) -> Texts:
    return texts(
        f"an interlock cannot be watched, {tags} has no good value ({condition})",
        f"un verrouillage ne peut pas être surveillé, {tags} n'a pas de valeur valide ({condition})",
        f"تعذّرت مراقبة شرط الأمان، لا توجد قيمة صالحة لـ {tags} ({condition})",
    )


def power_loss(recipe: str) -> Texts:
    return texts(
        f"{recipe} was interrupted by a power loss or a restart of edge",
        f"{recipe} a été interrompu par une coupure de courant ou un redémarrage de edge",
        f"توقّفت {recipe} بسبب انقطاع الكهرباء أو إعادة تشغيل edge",
    )


def stood_still(seconds: float) -> Texts:
    return texts(
        f"the control loop stood still for {seconds:.2f} s",
        f"la boucle de commande s'est arrêtée pendant {seconds:.2f} s",
        f"توقّفت حلقة التحكم لمدة {seconds:.2f} ثانية",
    )


NOT_RECORDED = texts(
    "the batch record takes nothing: steps wait. Is the disk full or broken?",
    "l'enregistrement des lots ne répond plus : les étapes attendent. Disque plein ou en panne ?",
    "سجل الدفعات لا يقبل شيئًا: الخطوات تنتظر. هل القرص ممتلئ أو معطّل؟",
)

# --- causes of states ------------------------------------------------------------------------------------------------

STARTED = texts("started", "démarré", "بدأت")
FINISHED = texts("all steps done", "toutes les étapes sont terminées", "اكتملت جميع الخطوات")
RECIPE_CHANGED = texts(
    "its recipe file has changed since",
    "le fichier de sa recette a changé entre-temps",
    "تغيّر ملف وصفتها منذ ذلك الحين",
)
CELL_CHANGED = texts(
    "the tags of its cell have changed since",
    "les variables de sa cellule ont changé entre-temps",
    "تغيّرت متغيّرات خليتها منذ ذلك الحين",
)
RESUMED = texts(
    "after_power_loss: resume",
    "reprise automatique après la coupure de courant",
    "استئناف تلقائي بعد انقطاع الكهرباء",
)
_COMMANDED = {
    "hold": ("maintien", "تعليق"),
    "restart": ("redémarrage", "إعادة التشغيل"),
    "pause": ("pause", "إيقاف مؤقت"),
    "resume": ("reprise", "استئناف"),
    "stop": ("arrêt", "إيقاف"),
    "abort": ("abandon", "إلغاء فوري"),
    "reset": ("réinitialisation", "إعادة الضبط"),
}


def commanded(do: str, by: str) -> Texts:
    """A person's command as a cause: `hold by ana`."""
    fr, ar = _COMMANDED[do]
    return texts(f"{do} by {by}", f"{fr} par {by}", f"{ar} بواسطة {by}")


def manual_mode(by: str) -> Texts:
    return texts(f"manual mode by {by}", f"mode manuel par {by}", f"الوضع اليدوي بواسطة {by}")


def recipe_gone(recipe: str) -> Texts:
    return texts(
        f"its recipe {recipe} is no longer there",
        f"sa recette {recipe} n'existe plus",
        f"لم تعد وصفتها {recipe} موجودة",
    )
