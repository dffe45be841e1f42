"""The texts of the alarms that edge raises by itself, in the languages of the floor."""

from edge.program import Texts


def device_lost(device: str, tag: str, reason: str) -> Texts:
    about = f" ({tag})" if tag else ""
    why = f": {reason}" if reason else ""
    return {
        "en": f"{device} is lost{about}{why}",
        "fr": f"{device} est perdu{about}{why}",
        "ar": f"انقطع الاتصال مع {device}{about}{why}",
    }


def tag_refused(tag: str, reason: str, *, write: bool) -> Texts:
    if write:
        return {
            "en": f"{tag} could not be set: {reason}",
            "fr": f"{tag} n'a pas pu être réglé : {reason}",
            "ar": f"تعذّر ضبط {tag}: {reason}",
        }
    return {
        "en": f"{tag} cannot be read: {reason}",
        "fr": f"{tag} ne peut pas être lu : {reason}",
        "ar": f"تعذّرت قراءة {tag}: {reason}",
    }


def value_refused(tag: str, value: object, wanted: str) -> Texts:
    return {
        "en": f"{tag} may not be set to {value}: {wanted}",
        "fr": f"{tag} ne peut pas être réglé à {value} : {wanted}",
        "ar": f"لا يجوز ضبط {tag} على {value}: {wanted}",
    }


def timed_out(step: str, condition: str) -> Texts:
    what = f" ({condition})" if condition else ""
    return {
        "en": f"step {step} took too long{what}",
        "fr": f"l'étape {step} a duré trop longtemps{what}",
        "ar": f"استغرقت الخطوة {step} وقتًا أطول من المسموح{what}",
    }


def phase_failed(phase: str) -> Texts:
    return {"en": f"{phase} failed", "fr": f"{phase} a échoué", "ar": f"فشل {phase}"}


def interlock_unknown(condition: str, tags: str) -> Texts:
    return {
        "en": f"an interlock cannot be watched, {tags} has no good value ({condition})",
        "fr": f"un verrouillage ne peut pas être surveillé, {tags} n'a pas de valeur valide ({condition})",
        "ar": f"تعذّرت مراقبة شرط الأمان، لا توجد قيمة صالحة لـ {tags} ({condition})",
    }


def power_loss(recipe: str) -> Texts:
    return {
        "en": f"{recipe} was interrupted by a power loss or a restart of edge",
        "fr": f"{recipe} a été interrompu par une coupure de courant ou un redémarrage de edge",
        "ar": f"توقّفت {recipe} بسبب انقطاع الكهرباء أو إعادة تشغيل edge",
    }


def stood_still(seconds: float) -> Texts:
    return {
        "en": f"the control loop stood still for {seconds:.2f} s",
        "fr": f"la boucle de commande s'est arrêtée pendant {seconds:.2f} s",
        "ar": f"توقّفت حلقة التحكم لمدة {seconds:.2f} ثانية",
    }


def not_recorded() -> Texts:
    return {
        "en": "the batch record takes nothing: steps wait. Is the disk full or broken?",
        "fr": "l'enregistrement des lots ne répond plus : les étapes attendent. Disque plein ou en panne ?",
        "ar": "سجل الدفعات لا يقبل شيئًا: الخطوات تنتظر. هل القرص ممتلئ أو معطّل؟",
    }


def english(say: Texts) -> str:
    """A text of the engineer's in English, or in whatever language there is."""
    return say.get("en") or next(iter(say.values()), "")
