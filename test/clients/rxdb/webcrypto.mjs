// node 18 has this, but not under its name.
import { webcrypto } from 'node:crypto';

globalThis.crypto ??= webcrypto;
