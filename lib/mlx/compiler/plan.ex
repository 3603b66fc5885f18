defmodule Mlx.Compiler.Plan do
  @moduledoc false

  # A scope as programs for the engine, with what the host does between them. A scope
  # without steps of the host is one program. With steps, each is preceded by a program
  # that computes what it needs and has not been computed yet.
  #
  # Values are known by their place: the inputs first, then what programs and steps give.

  alias Mlx.Compiler.{Expression, Program, Scope, Step}
  alias Mlx.{Dispatch, Graph}

  # `inputs` are the places of those that are used.
  defstruct steps: [], inputs: [], outputs: []

  defmodule Builder do
    @moduledoc false

    # `made` has the segment that makes a node, `available` the nodes that are inputs or
    # that steps give, and `exported` those that segments give to the host.
    defstruct [:settings, available: %{}, made: %{}, exported: %{}, segments: %{}]
  end

  @doc """
  The plan of a scope with `inputs`. The settings have the captured `:tensors`, the
  `:device` that computes constants, and whether to `:fuse`.
  """
  def build(%Scope{} = scope, inputs, settings) do
    available = Map.new(inputs, &{Graph.key(&1), true})
    builder = %Builder{settings: settings, available: available}
    last = length(scope.steps)

    builder =
      scope.steps
      |> Enum.with_index()
      |> Enum.reduce(builder, fn {step, at}, builder ->
        builder = Enum.reduce(step.operands, builder, &need(&1, at, &2))

        available =
          Enum.reduce(step.results, builder.available, &Map.put(&2, Graph.key(&1), true))

        %{builder | available: available}
      end)

    builder = Enum.reduce(scope.outputs, builder, &give(&1, last, &2))
    assemble(scope, inputs, builder)
  end

  ## Which segment makes what

  # Notes that the host needs a node after segment `at`.
  defp need(node, at, builder) do
    key = Graph.key(node)

    cond do
      is_map_key(builder.available, key) or is_map_key(builder.exported, key) -> builder
      earlier = builder.made[node.id] -> export(node, earlier, builder)
      true -> export(node, at, make(node, at, builder))
    end
  end

  # The last segment gives the outputs, of which some may be inputs.
  defp give(node, at, builder) do
    builder = make(node, at, builder)
    update(builder, at, &%{&1 | outputs: [node | &1.outputs]})
  end

  defp make(%Graph{id: id} = node, at, builder) do
    key = Graph.key(node)

    case builder.made do
      %{^id => ^at} ->
        builder

      %{^id => earlier} ->
        builder |> then(&export(node, earlier, &1)) |> import_node(node, at)

      %{} when is_map_key(builder.available, key) ->
        import_node(builder, node, at)

      made ->
        if Expression.known?(node) do
          update(builder, at, &%{&1 | constants: Map.put(&1.constants, key, node)})
        else
          Enum.reduce(node.operands, %{builder | made: Map.put(made, id, at)}, &make(&1, at, &2))
        end
    end
  end

  defp import_node(builder, node, at) do
    update(builder, at, &%{&1 | inputs: Map.put(&1.inputs, Graph.key(node), node)})
  end

  defp export(node, at, builder) do
    key = Graph.key(node)
    builder = %{builder | exported: Map.put(builder.exported, key, true)}
    update(builder, at, &%{&1 | exports: Map.put(&1.exports, key, node)})
  end

  defp update(builder, at, fun) do
    empty = %{inputs: %{}, constants: %{}, exports: %{}, outputs: []}
    %{builder | segments: Map.update(builder.segments, at, fun.(empty), fun)}
  end

  ## Programs and steps

  defp assemble(scope, inputs, builder) do
    places = inputs |> Enum.with_index() |> Map.new(fn {node, at} -> {Graph.key(node), at} end)
    last = length(scope.steps)

    {steps, places} =
      scope.steps
      |> Enum.with_index()
      |> Enum.flat_map_reduce(places, fn {step, at}, places ->
        {program, places} = segment(builder, at, places)
        {step, places} = step(step, places, builder.settings)
        {program ++ [step], places}
      end)

    {program, outputs} = last_segment(builder, last, places)
    steps = steps ++ program
    count = length(inputs)
    read = steps |> Enum.flat_map(&elem(&1, 1)) |> Enum.filter(&(&1 < count)) |> Enum.uniq()
    %__MODULE__{steps: steps, inputs: Enum.sort(read), outputs: outputs}
  end

  defp segment(builder, at, places) do
    case builder.segments[at] do
      nil -> {[], places}
      %{exports: exports} = segment -> program(segment, Map.values(exports), places, builder)
    end
  end

  # What the host needs of the last segment's values nobody does.
  defp last_segment(builder, at, places) do
    case builder.segments[at] do
      nil ->
        {[], []}

      segment ->
        outputs = Enum.reverse(segment.outputs)
        {[{:run, inputs, _results, program}], _} = program(segment, outputs, places, builder)
        results = Enum.to_list(map_size(places)..(map_size(places) + length(outputs) - 1)//1)
        {[{:run, inputs, results, program}], results}
    end
  end

  defp program(segment, outputs, places, builder) do
    inputs = Map.values(segment.inputs)

    constants = segment.constants |> Map.values() |> alike()

    code = Graph.program(outputs, inputs ++ constants)
    program = Program.new(code, Enum.map(constants, &hd/1), builder.settings)
    {results, next} = give_places(outputs, places)
    {[{:run, places_of(inputs, places), results, program}], next}
  end

  # Constants in lists of those that are the same.
  defp alike(constants) do
    groups = Enum.group_by(constants, &Graph.content/1)
    constants |> Enum.map(&Graph.content/1) |> Enum.uniq() |> Enum.map(&Map.fetch!(groups, &1))
  end

  defp step(%Step{action: action} = step, places, settings) do
    operands = places_of(step.operands, places)
    {results, places} = give_places(step.results, places)
    {{:host, operands, results, host(action, step, settings)}, places}
  end

  defp host(:token, _step, _settings), do: :token

  defp host({kind, data, fun}, _step, _settings) when kind in [:call, :once],
    do: {kind, data, fun}

  defp host({kind, [first, second]}, _step, settings) do
    {kind, build(first, first.inputs, settings), build(second, second.inputs, settings)}
  end

  defp places_of(nodes, places), do: Enum.map(nodes, &Map.fetch!(places, Graph.key(&1)))

  defp give_places(nodes, places) do
    Enum.map_reduce(nodes, places, fn node, places ->
      place = map_size(places)
      {place, Map.put(places, Graph.key(node), place)}
    end)
  end

  @doc """
  How many instructions its programs have, those of branches and loops included.
  """
  def nodes(%__MODULE__{steps: steps}), do: steps |> Enum.map(&step_nodes/1) |> Enum.sum()

  defp step_nodes({:run, _inputs, _results, program}), do: program.nodes

  defp step_nodes({:host, _operands, _results, {kind, first, second}})
       when kind in [:cond, :while],
       do: nodes(first) + nodes(second)

  defp step_nodes({:host, _operands, _results, _action}), do: 0

  ## Running

  @doc """
  Runs a plan with the arrays of its inputs, of which those that are not used may be
  `nil`, and gives those of its outputs.
  """
  def run(%__MODULE__{steps: [{:run, inputs, _results, program}]}, values, device, donated) do
    refs = Enum.map(inputs, &elem(values, &1))
    donated = for at <- donated, at in inputs, do: elem(values, at)
    Program.run(program, refs, device, donated)
  end

  def run(%__MODULE__{steps: steps, outputs: outputs}, values, device, donated) do
    values =
      values |> Tuple.to_list() |> Enum.with_index() |> Map.new(fn {ref, at} -> {at, ref} end)

    values =
      steps
      |> Enum.zip(donations(steps, only_once(donated, values)))
      |> Enum.reduce(values, fn {step, donated}, values ->
        run_step(step, values, device, donated)
      end)

    Enum.map(outputs, &Map.fetch!(values, &1))
  end

  # One that is also another argument may be used later.
  defp only_once([], _values), do: []

  defp only_once(donated, values) do
    counts = values |> Map.values() |> Enum.frequencies()
    Enum.filter(donated, &(counts[values[&1]] == 1))
  end

  # What each step is the last to use of the donated places. Functions of the host may
  # keep what they are given.
  defp donations(steps, []), do: Enum.map(steps, fn _ -> [] end)

  defp donations(steps, donated) do
    kept = for {:host, operands, _results, _action} <- steps, place <- operands, do: place

    {donations, _left} =
      steps
      |> Enum.reverse()
      |> Enum.map_reduce(donated -- Enum.uniq(kept), fn step, left ->
        now = for place <- left, place in elem(step, 1), do: place
        {now, left -- now}
      end)

    Enum.reverse(donations)
  end

  defp run_step({:run, inputs, results, program}, values, device, donated) do
    donated = Enum.map(donated, &values[&1])
    refs = Program.run(program, Enum.map(inputs, &values[&1]), device, donated)
    put(values, results, refs)
  end

  defp run_step({:host, operands, results, action}, values, device, _donated) do
    put(values, results, act(action, Enum.map(operands, &values[&1]), device))
  end

  defp put(values, places, refs) do
    places |> Enum.zip(refs) |> Enum.into(values)
  end

  defp act({:call, data, fun}, refs, device) do
    data |> Dispatch.wrap_all(refs, device) |> fun.() |> Enum.map(&Dispatch.ref(&1, device))
  end

  # What stands in for an action that is watched.
  defp act({:watched, watch, action}, refs, device),
    do: watch.(fn -> act(action, refs, device) end)

  defp act(:token, [], _device), do: [:atomics.new(1, [])]

  defp act({:once, data, fun}, [token | refs], device) do
    if :atomics.exchange(token, 1, 1) == 0, do: act({:call, data, fun}, refs, device), else: []
  end

  defp act({:cond, on_true, on_false}, [predicate | refs], device) do
    chosen = if Dispatch.truth(predicate), do: on_true, else: on_false
    run(chosen, List.to_tuple(refs), device, [])
  end

  defp act({:while, condition, body} = loop, refs, device) do
    values = List.to_tuple(refs)
    [goes_on] = run(condition, values, device, [])

    if Dispatch.truth(goes_on),
      do: act(loop, run(body, values, device, []), device),
      else: refs
  end
end

defimpl Inspect, for: Mlx.Compiler.Plan do
  alias Mlx.Compiler.{Plan, Program}

  def inspect(plan, _opts) do
    "#Mlx.Compiler.Plan<\n#{plan(plan, "  ")}>"
  end

  defp plan(%Plan{steps: steps}, indent), do: Enum.map_join(steps, &step(&1, indent))

  defp step({:run, inputs, results, program}, indent) do
    "#{indent}#{values(results)} = run #{values(inputs)}\n" <>
      code(Program.code(program), indent <> "  ")
  end

  defp step({:host, operands, results, :token}, indent) do
    "#{indent}#{values(results)} = token #{values(operands)}\n"
  end

  defp step({:host, operands, results, {kind, _data, _fun}}, indent)
       when kind in [:call, :once] do
    "#{indent}#{values(results)} = #{kind} #{values(operands)}\n"
  end

  defp step({:host, operands, results, {kind, first, second}}, indent) do
    "#{indent}#{values(results)} = #{kind} #{values(operands)}\n" <>
      plan(first, indent <> "  ") <> "#{indent}and\n" <> plan(second, indent <> "  ")
  end

  defp values(places), do: "[#{Enum.map_join(places, ", ", &"v#{&1}")}]"

  defp code({inputs, instructions, outputs}, indent) do
    {lines, _next} = Enum.map_reduce(instructions, inputs, &instruction(&1, &2, indent))
    "#{lines}#{indent}=> #{registers(outputs)}\n"
  end

  defp instruction({row, operands, attributes} = instruction, next, indent) do
    count = Mlx.Graph.results(instruction)
    results = Enum.to_list(next..(next + count - 1)//1)
    {programs, others} = Enum.split_with(attributes, &is_program/1)
    others = Enum.map_join(others, &", #{inspect(&1)}")
    line = "#{indent}#{registers(results)} = #{row}(#{registers(operands)}#{others})\n"

    {[line | Enum.map(programs, &[indent, "  program\n", code(&1, indent <> "    ")])],
     next + count}
  end

  defp is_program(attribute), do: Mlx.Graph.program?(attribute)

  defp registers(registers), do: Enum.map_join(registers, ", ", &"r#{&1}")
end
