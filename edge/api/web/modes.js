// The mode of a batch (ISA-88): choosing it, confirming steps in semi-automatic, setting outputs by hand in manual.

import { html, useState } from '/web/vendor/preact.js';
import { Fault, Icon, Ltr, useDesk } from '/web/parts.js';
import { checkNumber, NumberField, TextField } from '/web/fields.js';

export function Modes({ id, batch, recipe }) {
  const desk = useDesk();
  const { t } = desk;
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);
  const give = async (path, body) => {
    setBusy(true);
    const done = await desk.give(path, body);
    setBusy(false);
    setError(done.error);
  };
  const off = busy || !desk.current;
  if (!batch.modes.length) return null;
  return html`<section class="modes" data-mode=${batch.mode}>
    <div class="buttons" role="group" aria-label=${t.mode}>
      ${batch.modes.map(
        (name) => html`<button key=${name} type="button" data-mode=${name} aria-pressed=${name === batch.mode}
          disabled=${off} onClick=${() => name !== batch.mode && give(`/api/batches/${id}/mode`, { mode: name })}>
          ${t.modes[name]}
        </button>`,
      )}
    </div>
    ${batch.waits.length > 0 &&
    html`<div class="question">
      <p class="eyebrow"><${Icon} name="question" /> ${t.confirmWanted}</p>
      <div class="buttons">
        ${batch.waits.map(
          (one) => html`<button key=${`${one.branch}:${one.step}`} type="button" class="primary" data-confirm=${one.step}
            disabled=${off || batch.state !== 'running'}
            onClick=${() => give(`/api/batches/${id}/confirm`, { step: one.step })}>
            <${Icon} name="play" /> ${one.branch && html`<${Ltr}>${one.branch}<//> · `}<bdi>${one.name}</bdi>
          </button>`,
        )}
      </div>
    </div>`}
    <${Fault} error=${error} />
    ${batch.mode === 'manual' &&
    html`<div class="by-hand">
      <p class="about">${batch.state === 'held' ? t.byHand : t.notHeldYet}</p>
      ${batch.state === 'held' &&
      (recipe?.outputs ?? []).map((one) => html`<${Hand} key=${one.tag} output=${one} off=${!desk.current} />`)}
    </div>`}
  </section>`;
}

/** One output with the control that its type needs. */
function Hand({ output, off }) {
  const desk = useDesk();
  const { t } = desk;
  const [text, setText] = useState('');
  const [fault, setFault] = useState('');
  const [error, setError] = useState('');
  const set = async (value) => setError((await desk.give(`/api/tags/${output.tag}`, { value })).error);
  const sent = (event) => {
    event.preventDefault();
    const [value, wrong] = output.type === 'number' ? checkNumber(desk, output, text) : [text, text ? '' : t.needed];
    setFault(wrong);
    if (!wrong) set(value);
  };
  const common = { label: output.tag, text, fault, onText: setText };
  return html`<form class="hand" data-output=${output.tag} onSubmit=${sent} noValidate>
    ${output.type === 'bool'
      ? html`<p><${Ltr}>${output.tag}<//></p>
          <div class="buttons">
            <button type="button" data-value="true" disabled=${off} onClick=${() => set(true)}>${t.on}</button>
            <button type="button" data-value="false" disabled=${off} onClick=${() => set(false)}>${t.off}</button>
          </div>`
      : html`<div class="entry">
          ${output.type === 'number'
            ? html`<${NumberField} ...${common} unit=${output.unit} low=${output.low} high=${output.high} />`
            : html`<${TextField} ...${common} />`}
          <button type="submit" disabled=${off}>${t.setIt}</button>
        </div>`}
    <${Fault} error=${error} />
  </form>`;
}
