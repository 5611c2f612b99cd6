/** How much of the processor something takes: unlike the time on the clock, no neighbour changes that much. */

import { cpuUsage } from "node:process";

/** Seconds that all threads of this process have computed. */
export function processorSeconds(): number {
  const { user, system } = cpuUsage();
  return (user + system) / 1e6;
}
