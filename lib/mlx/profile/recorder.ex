defmodule Mlx.Profile.Recorder do
  @moduledoc false

  # Puts itself between a plan and what runs it. The engine times the instructions of a
  # program, this the functions of the host and what they drive. What it notes is in the
  # dictionary of the process, because the functions that run the plan give no more than
  # the plan's values.

  alias Mlx.Compiler.Plan
  alias Mlx.{Dispatch, Native}
  alias Mlx.Profile.Instruction

  # As many as the engine keeps of one program.
  @most_events 100_000

  @doc """
  Gives what `run` makes of a plan that is watched, and the instructions, events, number
  of events that were dropped, and nanoseconds of it.
  """
  def record(%Plan{} = plan, run) do
    {plan, lines} = watched(plan, [], [])
    Process.put(__MODULE__, %{began: now(), inside: [0], lines: %{}, events: [], dropped: 0})
    result = run.(plan)
    state = Process.get(__MODULE__)
    duration = now() - state.began
    instructions = lines |> Enum.reverse() |> Enum.with_index(&Map.get(state.lines, &2, &1))
    {result, instructions, Enum.sort_by(state.events, & &1.start), state.dropped, duration}
  after
    Process.delete(__MODULE__)
  end

  ## Watching

  # `lines` has the instructions so far, the last first.
  defp watched(%Plan{steps: steps} = plan, path, lines) do
    {steps, lines} = Enum.map_reduce(steps, lines, &watched_step(&1, path, &2))
    {%{plan | steps: steps}, lines}
  end

  defp watched_step({:run, inputs, results, program}, path, lines) do
    first = length(lines)
    listing = instructions(Native.profile_listing(program.ref), path)
    run = &run(program, &1, &2, first, listing)
    {{:run, inputs, results, run}, Enum.reverse(listing, lines)}
  end

  defp watched_step({:host, _, _, :token} = step, _path, lines), do: {step, lines}

  defp watched_step({:host, operands, results, action}, path, lines) do
    {op, parts} = parts(action)
    instruction = %Instruction{op: op, path: path}
    line = length(lines)

    {plans, lines} =
      Enum.map_reduce(parts, [instruction | lines], fn {part, plan}, lines ->
        watched(plan, path ++ [op, part], lines)
      end)

    action = {:watched, &watch(&1, line, instruction), with_parts(action, plans)}
    {{:host, operands, results, action}, lines}
  end

  defp parts({:cond, first, second}), do: {"cond", [{"on_true", first}, {"on_false", second}]}
  defp parts({:while, first, second}), do: {"while", [{"condition", first}, {"body", second}]}
  defp parts({_call_or_once, _data, _fun}), do: {"call", []}

  defp with_parts({kind, _, _}, [first, second]), do: {kind, first, second}
  defp with_parts(action, []), do: action

  # The lines come with depths; those around the one at hand are its path.
  defp instructions(listing, path) do
    {instructions, _around} =
      Enum.map_reduce(listing, [], fn line, around ->
        around = Enum.drop(around, length(around) - line.depth)
        inside = around |> Enum.reverse() |> tl_parts(line.part)
        instruction = %Instruction{op: line.op, path: path ++ inside, fused: line.fused}
        {instruction, [{line.op, line.part} | around]}
      end)

    instructions
  end

  # Each instruction around is followed by the part that the next one is in.
  defp tl_parts([], nil), do: []

  defp tl_parts(around, part) do
    parts = around |> Enum.map(&elem(&1, 1)) |> tl() |> Enum.concat([part])
    around |> Enum.zip(parts) |> Enum.flat_map(fn {{op, _}, part} -> [op, part] end)
  end

  ## Running

  defp run(program, refs, device, first, listing) do
    target = Mlx.Stream.target(device)
    {refs, profile} = Dispatch.await(&Native.profile_run(target, program.ref, refs, &1))
    ended = now()

    update(fn state ->
      # The engine counts from when it started the program.
      offset = ended - profile.duration - state.began

      lines =
        listing
        |> Enum.zip(profile.timings)
        |> Enum.with_index(first)
        |> Enum.reduce(state.lines, fn {{instruction, timing}, line}, lines ->
          Map.update(lines, line, add(instruction, timing), &add(&1, timing))
        end)

      outermost = Enum.zip_with(listing, profile.timings, &outermost(&1, &2, listing))

      events =
        for {line, start, duration} <- profile.events,
            do: %{instruction: first + line, start: max(offset + start, 0), duration: duration}

      %{state | lines: lines, dropped: state.dropped + profile.dropped}
      |> inside(Enum.sum(outermost))
      |> events(events)
    end)

    refs
  end

  defp outermost(%Instruction{path: path}, timing, [%Instruction{path: base} | _]),
    do: if(path == base, do: timing.time, else: 0)

  defp watch(act, line, instruction) do
    began = now()
    update(&%{&1 | inside: [0 | &1.inside]})
    results = act.()
    duration = now() - began

    update(fn %{inside: [within | around]} = state ->
      timing = %{calls: 1, time: duration, own: duration - within}
      lines = Map.update(state.lines, line, add(instruction, timing), &add(&1, timing))
      event = %{instruction: line, start: began - state.began, duration: duration}
      %{state | inside: around, lines: lines} |> inside(duration) |> events([event])
    end)

    results
  end

  defp inside(%{inside: [time | around]} = state, more),
    do: %{state | inside: [time + more | around]}

  defp events(state, events) do
    {kept, dropped} = Enum.split(events, max(@most_events - length(state.events), 0))
    %{state | events: kept ++ state.events, dropped: state.dropped + length(dropped)}
  end

  defp add(%Instruction{} = instruction, %{calls: 0}), do: instruction

  defp add(%Instruction{} = instruction, timing) do
    %{
      instruction
      | operands: signatures(timing[:operands]),
        results: signatures(timing[:results]),
        bytes: timing[:bytes] || 0,
        calls: instruction.calls + timing.calls,
        time: instruction.time + timing.time,
        own: instruction.own + timing.own
    }
  end

  defp signatures(nil), do: []
  defp signatures(list), do: for({type, dims} <- list, do: {type, List.to_tuple(dims)})

  defp update(fun), do: Process.put(__MODULE__, fun.(Process.get(__MODULE__)))

  defp now, do: System.monotonic_time(:nanosecond)
end
