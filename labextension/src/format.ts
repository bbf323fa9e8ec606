/** Numbers for people. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** 1536 → "1.5 KiB". */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/** The last part of a path. */
export function nameOf(path: string): string {
  return path.split('/').pop() || path;
}

/** "3 minutes ago" in the language of the page. since: seconds since 1970. */
export function formatAge(since: number): string {
  const seconds = Math.max(0, Date.now() / 1000 - since);
  const format = new Intl.RelativeTimeFormat(document.documentElement.lang || 'en', { numeric: 'auto' });
  for (const [unit, length] of [
    ['day', 86400],
    ['hour', 3600],
    ['minute', 60]
  ] as const) {
    if (seconds >= length) {
      return format.format(-Math.floor(seconds / length), unit);
    }
  }
  return format.format(-Math.floor(seconds), 'second');
}
