// The fields of forms, with their unit, range and what is wrong with them.

import { html, useId } from '/web/vendor/preact.js';
import { useDesk } from '/web/parts.js';
import { parseNumber, unitText } from '/web/texts.js';

/** [value, what is wrong] of a number as it was typed. */
export function checkNumber(desk, { low, high, unit }, text) {
  const { t } = desk;
  if (!text.trim()) return [null, t.needed];
  const value = parseNumber(text);
  if (Number.isNaN(value)) return [null, t.notNumber];
  const outside = (low !== null && value < low) || (high !== null && value > high);
  return [value, outside ? t.between(rangeText(desk, low, high, unit)) : ''];
}

/** `5 to 50 L`, isolated so that it reads in this order in any language. */
export function rangeText(desk, low, high, unit) {
  const end = (value, sign) => (value === null ? sign : desk.number(value));
  const text = `${end(low, '−∞')} ${desk.t.to} ${end(high, '∞')}`;
  return unit ? `${text} \u2066${unitText(unit)}\u2069` : text;
}

/** A field with its label above, and below it the range or what is wrong: in one place, so that nothing moves away. */
function Frame({ id, label, hideLabel, hint, fault, children }) {
  return html`<div class="field" data-wrong=${fault ? 'yes' : null}>
    <label for=${id} class=${hideLabel ? 'unseen' : ''}><bdi>${label}</bdi></label>
    ${children}
    <p class=${fault ? 'below wrong' : 'below hint'} id=${`${id}-below`} aria-live="polite"><bdi>${fault || hint}</bdi></p>
  </div>`;
}

export function NumberField({ label, hideLabel, name, unit, low, high, text, fault, onText, onLeave }) {
  const desk = useDesk();
  const id = useId();
  const hint = low === null && high === null ? '' : rangeText(desk, low, high, unit);
  return html`<${Frame} id=${id} label=${label} hideLabel=${hideLabel} hint=${hint} fault=${fault}>
    <span class="with-unit" dir="ltr">
      <input id=${id} name=${name} inputmode="decimal" autocomplete="off" dir="ltr" value=${text}
        aria-invalid=${fault ? 'true' : null} aria-describedby=${`${id}-below`}
        onInput=${(event) => onText(event.currentTarget.value)} onBlur=${onLeave} />
      ${unit && html`<span class="unit">${unitText(unit)}</span>`}
    </span>
  <//>`;
}

export function TextField({ label, hideLabel, name, text, fault, onText, onLeave }) {
  const id = useId();
  return html`<${Frame} id=${id} label=${label} hideLabel=${hideLabel} fault=${fault}>
    <input id=${id} name=${name} autocomplete="off" dir="auto" maxlength="200" value=${text}
      aria-invalid=${fault ? 'true' : null} aria-describedby=${`${id}-below`}
      onInput=${(event) => onText(event.currentTarget.value)} onBlur=${onLeave} />
  <//>`;
}

export function ChoiceField({ label, name, choices, text, fault, onText }) {
  const id = useId();
  return html`<${Frame} id=${id} label=${label} fault=${fault}>
    <select id=${id} name=${name} value=${text} onChange=${(event) => onText(event.currentTarget.value)}>
      ${text === '' && html`<option value=""></option>`}
      ${choices.map((one) => html`<option value=${one} selected=${one === text}>${one}</option>`)}
    </select>
  <//>`;
}

export function Switch({ label, name, on, onSwitch }) {
  return html`<label class="switch">
    <input type="checkbox" name=${name} checked=${on} onChange=${(event) => onSwitch(event.currentTarget.checked)} />
    <bdi>${label}</bdi>
  </label>`;
}
