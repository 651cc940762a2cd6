// What passed and what failed; a failure is told with what is needed to repeat it.

const SHOWN = 3;			// failures told per property

export class Tally
{
	constructor()
	{
		this.passed = 0;
		this.failed = 0;
		this.properties = new Map();
	}

	// One test.
	test(name, ok, detail = '')
	{
		if (ok)
			this.passed++;
		else
		{
			this.failed++;
			console.log(`FAILED: ${name}${detail && '\n\t' + detail}`);
		}
	}

	// One of many cases of a property, which counts as one test in the end.
	property(name, ok, detail)
	{
		const p = this.properties.get(name) ?? { cases: 0, wrong: 0 };

		this.properties.set(name, p);
		p.cases++;
		if (ok)
			return;
		if (++p.wrong <= SHOWN)
			console.log(`wrong: ${name}\n\t${detail()}`);
	}

	// Closes the properties; one without a case has shown nothing and fails.
	close(names)
	{
		for (const name of names)
		{
			const { cases, wrong } = this.properties.get(name) ?? { cases: 0, wrong: 0 };

			console.log(`  ${name}: ${cases} cases${wrong ? `, ${wrong} WRONG` : ''}`);
			this.test(name, cases > 0 && wrong === 0, `${wrong} of ${cases} cases`);
		}
	}
}
