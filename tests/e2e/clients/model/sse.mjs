// Server-sent events, as all of the APIs stream their answers.

export const events = (list) => ({
  type: 'text/event-stream',
  content: list
    .map((event) => `${event.type ? `event: ${event.type}\n` : ''}data: ${typeof event === 'string' ? event : JSON.stringify(event)}\n\n`)
    .join(''),
});

export const json = (value) => ({ type: 'application/json', content: JSON.stringify(value) });
