// Numbers as people read them.

const PREFIXES = ["", "k", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q"];

/** Three digits and an SI prefix: 17234356333 is "17.2 G". The server's bill rounds the same way. */
export function forPeople(number) {
  let power = 0;
  while (Math.abs(number) >= 999.5 && power < PREFIXES.length - 1) {
    number /= 1000;
    power += 1;
  }
  return `${Number(number.toPrecision(3))} ${PREFIXES[power]}`.trim();
}

export const eflops = (number) => `${forPeople(number)} eFLOPs`;

/** Two digits below a cent, cents above it: 0.00412 is "$0.0041", and 12.345 is "$12.35". */
export function dollars(amount) {
  if (amount === 0) return "$0";
  const places = Math.max(2, 1 - Math.floor(Math.log10(amount)));
  const text = `$${amount.toFixed(places)}`;
  return places === 2 ? text : text.replace(/0+$/, "");
}

/** Of 0 to 1. */
export const percent = (share) => (share > 0 && share < 1e-4 ? "< 0.01 %" : roundPercent(share));

const roundPercent = (share) => `${Number((100 * share).toPrecision(share >= 0.995 ? 3 : 2))} %`;

export const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
