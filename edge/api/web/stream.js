// The line to edge: its state, live, by server-sent events; and commands, by POST.

const NAMED = new Set(['devices', 'units', 'tags', 'batches', 'alarms', 'log']);
const SILENCE_MS = 3500;
const AGAIN_MS = 1000;
const ANSWER_MS = 6000;

/** The state after a change: named sections entry by entry (null: it is gone), anything else as a whole. */
export function applied(state, change) {
  const next = { ...state };
  for (const [section, value] of Object.entries(change)) {
    if (!NAMED.has(section)) {
      next[section] = value;
      continue;
    }
    next[section] = { ...state[section], ...value };
    for (const [name, entry] of Object.entries(value)) {
      if (entry === null) delete next[section][name];
    }
  }
  return next;
}

/**
 * Calls `show({state, link, since})` for every change, from the first try on. `link` is connecting, live or lost;
 * `since` is when it was lost. A beat comes each second: a line that says nothing for longer is as lost as a broken one.
 */
export function follow(show) {
  let now = { state: null, link: 'connecting', since: null };
  let source = null;
  let timer = 0;

  const update = (change) => show((now = { ...now, ...change }));
  const lose = () => {
    if (now.link !== 'lost') update({ link: 'lost', since: new Date().toISOString() });
  };
  const hear = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      lose();
      connect();
    }, SILENCE_MS);
  };
  const connect = () => {
    source?.close();
    source = new EventSource('/api/events');
    hear();
    source.addEventListener('state', (event) => {
      hear();
      update({ state: JSON.parse(event.data), link: 'live', since: null });
    });
    source.addEventListener('change', (event) => {
      hear();
      update({ state: applied(now.state, JSON.parse(event.data)) });
    });
    source.addEventListener('beat', hear);
    source.onerror = () => {
      source.close();
      lose();
      clearTimeout(timer);
      timer = setTimeout(connect, AGAIN_MS);
    };
  };
  show(now);
  connect();
}

/**
 * Gives a command. Resolves to {error: '', …answer} or to {error, fields}: a text, or one in several languages; `null`:
 * no answer at all.
 */
export async function post(path, body) {
  try {
    const answer = await fetch(path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    const data = await answer.json();
    return answer.ok ? { ...data, error: '' } : { ...data, error: data.say ?? data.error };
  } catch {
    return { error: null };
  }
}

/** Reads from the API; null where that fails. */
export async function get(path) {
  try {
    const answer = await fetch(path, { signal: AbortSignal.timeout(ANSWER_MS) });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}
