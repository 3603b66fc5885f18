defmodule Mlx.NativeFuzz do
  @moduledoc """
  Random calls of the functions of `Mlx.Native`, which may refuse them but must answer.

  Case `n` of a seed is always the same call, so what ends the VM can be run again:

      Mlx.NativeFuzz.run(seed, n..n)

  """

  import Mlx.NativeFuzz.Terms
  import Mlx.TestDevice, only: [device: 0]
  alias Mlx.Native

  # Of answers that come at all, none takes long.
  @patience 60_000

  # Rows that may go on for ever, rightly.
  @loops [:while, :repeat]

  # A stream is a thread for as long as the VM lives, and limits are for all other calls.
  @left_out [:__info__, :rustler_init, :stream_new, :stream_close] ++
              [:memory_set_limit, :stream_set_queue_limit, :stream_set_stepwise]

  @doc """
  Runs cases until the time is over, and raises at the first that isn't answered as it
  should be. `note` is called with the number of each before it runs.
  """
  def run(seed, cases, until \\ nil, note \\ fn _ -> :ok end) do
    state = state(seed)

    Enum.reduce_while(cases, 0, fn number, count ->
      if until && System.monotonic_time(:second) >= until do
        {:halt, count}
      else
        note.(number)
        try_case(state, seed, number)
        {:cont, count + 1}
      end
    end)
  end

  @doc """
  The call that is a case.
  """
  def describe(seed, number), do: seed |> state() |> generated(seed, number)

  defp state(seed) do
    Native.memory_set_limit(2 ** 29)
    %{rows: rows(), tensors: tensors(seed), stream: stream(), program: program()}
  end

  defp generated(state, seed, number) do
    :rand.seed(:exsss, :erlang.phash2({seed, number}, 2 ** 32))
    call(below(20), state)
  end

  defp try_case(state, seed, number) do
    {function, args} = generated(state, seed, number)

    try do
      with {:answer, outcome} <- request(function, args), do: settle(outcome, function)
    catch
      reason -> flunk(reason, function, args, number)
    end

    if rem(number, 500) == 0, do: check_alive()
  end

  # A function may refuse its arguments in whatever way functions do that.
  defp request(function, args) do
    {:answer, apply(Native, function, args)}
  rescue
    error -> if match?(%ErlangError{original: :nif_panicked}, error), do: throw(:panic)
  end

  defp flunk(reason, function, args, number) do
    call = inspect({function, args}, limit: :infinity, printable_limit: :infinity)

    if Process.get(:survey),
      do: IO.puts("SURVEY case #{number}: #{inspect(reason)} of #{String.slice(call, 0, 600)}"),
      else: raise("case #{number}: #{inspect(reason)} of #{call}")
  end

  # What comes back is read, so that it is computed.
  defp settle({status, refs}, function) when status in [:ok, :collect] and is_list(refs) do
    for ref <- refs, do: read(ref)
    if function == :program_run, do: :erlang.garbage_collect()
  end

  defp settle({:ok, :pending}, _function) do
    receive do
      {_tag, {:ok, ref}} when is_reference(ref) -> read(ref)
      {_tag, outcome} -> check(outcome)
    after
      @patience -> throw(:no_answer)
    end
  end

  defp settle({status, ref}, function)
       when status in [:ok, :collect] and function in [:tensor_from_binary, :stream_run],
       do: read(ref)

  defp settle({:ok, ref}, :program_new) do
    for _ <- 1..2,
        do: device() |> Native.program_run(ref, [], []) |> settle(:program_run)
  end

  defp settle(outcome, _function), do: check(outcome)

  defp read(ref) do
    tag = make_ref()

    case Native.tensor_read(ref, tag) do
      {:ok, :pending} ->
        receive do
          {^tag, outcome} -> check(outcome)
        after
          @patience -> throw(:no_answer)
        end

      outcome ->
        check(outcome)
    end
  end

  defp check({:error, %{message: message, kind: _, op: _, operands: _}}) do
    if message =~ ~r/internal error|answer was lost/, do: throw({:panic, message})
  end

  defp check(_outcome), do: :ok

  defp check_alive do
    {_, [ref]} =
      Native.stream_submit(
        device(),
        [{:add, [0, 0], []}],
        [tensor({:u, 8}, [], <<3>>)],
        [1]
      )

    {:ok, <<6>>} = answer(&Native.tensor_read(ref, &1))
    Native.memory_set_limit(2 ** 29)
  end

  defp answer(request) do
    tag = make_ref()

    case request.(tag) do
      {:ok, :pending} -> receive(do: ({^tag, outcome} -> outcome))
      outcome -> outcome
    end
  end

  ## Calls

  # Any function with any terms.
  defp call(kind, state) when kind < 3 do
    {function, arity} = one(functions())
    {function, for(_ <- 1..arity//1, do: term(leaves(state)))}
  end

  # A call that is right but for one part.
  defp call(kind, state) when kind < 7 do
    {function, args} = call(7 + below(13), %{state | rows: without_loops(state.rows)})
    {function, mutated(args, leaves(state))} |> with_arity(length(args))
  end

  defp call(7, state), do: {:tensor_from_binary, binary_args(state)}
  defp call(8, state), do: {:program_new, program_args(state, chance(5))}
  defp call(9, state), do: {one([:tensor_read, :tensor_signature]), [tensor(state), :tag]}
  defp call(10, state), do: {:tensor_eval, [[tensor(state), tensor(state)], :tag]}
  defp call(11, state), do: {:program_run, [target(state), state.program, inputs(state), []]}

  defp call(12, _state) do
    source = {one([integer(), abs(integer()), 4096]), below(100)}
    {:pointer_from_local, [device(), source, one(shapes()), type(), :tag]}
  end

  defp call(13, _state) do
    name = one(["/mlx-none", "", <<0>>, :rand.bytes(300)])
    {:pointer_from_ipc, [device(), {name, below(100)}, one(shapes()), type(), :tag]}
  end

  defp call(14, state) do
    shape = one(shapes())
    {name, count, _} = row = state.rows |> without_loops() |> one()
    {{_, _, attributes}, _} = instruction(row, 3, Map.put(state, :rank, length(shape)))
    inputs = state |> operands(shape) |> Enum.take(count || below(4))
    {:stream_run, [target(state), name, inputs, attributes]}
  end

  defp call(_rows, state) do
    {inputs, instructions, registers} = instructions(state)
    outputs = for _ <- 1..(1 + below(2)), do: register(registers)
    {:stream_submit, [device(), instructions, inputs, [registers - 1 | outputs]]}
  end

  defp with_arity({function, args}, arity) when is_list(args) do
    if List.improper?(args) or length(args) != arity,
      do: {function, List.duplicate(args, arity)},
      else: {function, args}
  end

  defp with_arity({function, args}, arity), do: {function, List.duplicate(args, arity)}

  defp functions do
    for {name, arity} <- Native.__info__(:functions), name not in @left_out, do: {name, arity}
  end

  defp leaves(state),
    do: [state.stream, state.program, tensor(state), tensor(state), device()]

  defp target(state), do: one([device(), state.stream])

  defp binary_args(_state) do
    {type, dims} = {one(types()), one(shapes())}
    dims = if chance(10), do: smalls(below(4)), else: dims
    size = if Enum.all?(dims, &(&1 in 0..100)), do: Enum.product(dims), else: below(10)
    size = if chance(10), do: below(40), else: size
    [device(), bytes(type, size), dims, type]
  end

  defp inputs(state), do: for(_ <- 1..below(4)//1, do: tensor(state))

  ## Instructions

  defp program_args(state, fuse) do
    {inputs, instructions, registers} = instructions(state)
    [{length(inputs), instructions, [registers - 1]}, inputs, fuse]
  end

  defp instructions(state) do
    shape = one(shapes())
    inputs = operands(state, shape)
    count = if chance(70), do: 1, else: 1 + below(5)

    {instructions, registers} =
      Enum.map_reduce(1..count, length(inputs), fn _, registers ->
        instruction(one(state.rows), registers, Map.put(state, :rank, length(shape)))
      end)

    {inputs, instructions, registers}
  end

  # Mostly of one type and of shapes that go together, so that rows get far.
  defp operands(state, shape) do
    tensors = Map.values(state.tensors)
    type = one(types())

    for _ <- 1..3 do
      case below(10) do
        0 -> tensors |> one() |> one()
        at when at < 5 -> state.tensors[type] |> one()
        _ -> tensor(type, shape, bytes(type, Enum.product(shape)))
      end
    end
  end

  defp instruction({name, _, _} = row, registers, _state) when name in @loops,
    do: loop(row, registers)

  defp instruction({name, count, attributes}, registers, state) do
    operands = for _ <- 1..(count || 1 + below(4))//1, do: register(registers)
    attributes = for kind <- attributes, do: attribute(kind, state)
    results = results(name, attributes)
    {{name, operands, attributes}, registers + results}
  end

  defp results(name, attributes) do
    {_, _, _, results} = List.keyfind(Native.op_table(), name, 0)

    case {results, List.last(attributes)} do
      {nil, {_, _, outputs}} -> length(outputs)
      {nil, _} -> 1
      {results, _} -> results
    end
  end

  defp loop({:repeat, _, _}, registers) do
    body = {2, [{one([:add, :max, :multiply]), [0, 1], []}], [2]}
    attributes = [body, below(4) - 1, integer64(), integer64(), type()]
    {{:repeat, [register(registers)], attributes}, registers + 1}
  end

  # Counts down to zero, or is refused.
  defp loop({:while, _, _}, registers) do
    byte = {:cast, [0], [{:u, 8}]}
    constant = fn byte -> {:full, [], [<<byte>>, [], {:u, 8}]} end
    condition = {1, [byte, constant.(0), {:not_equal, [1, 2], []}], [3]}
    body = {1, [byte, constant.(1), {:right_shift, [1, 2], []}], [3]}
    {{:while, [register(registers)], [condition, body]}, registers + 1}
  end

  defp integer64, do: max(min(integer(), 2 ** 63 - 1), -(2 ** 63))

  defp register(registers), do: if(chance(1), do: registers, else: below(max(registers, 1)))

  defp attribute(:boolean, _state), do: chance(50)
  defp attribute(:integer, _state), do: small()
  defp attribute(:number, _state), do: one([0.5, 1.0e-5, 3, small()])
  defp attribute(:integers, %{rank: rank}), do: integers(rank)
  defp attribute(:type, _state), do: type()
  defp attribute(:bytes, _state), do: :rand.bytes(one([1, 2, 4, 8, below(10)]))
  defp attribute(:program, state), do: nested(state)

  # Mostly one for each axis.
  defp integers(rank) do
    case below(8) do
      0 -> Enum.to_list(0..below(3)//1)
      1 -> [below(4)]
      2 -> List.duplicate(below(3), below(4))
      3 -> smalls(below(5))
      4 -> Enum.shuffle(0..(rank - 1)//1)
      5 -> List.duplicate(below(3), rank)
      _ -> for _ <- 1..rank//1, do: 1 + below(3)
    end
  end

  defp nested(state) do
    inputs = 1 + below(4)

    {instructions, registers} =
      Enum.map_reduce(1..(1 + below(3)), inputs, fn _, registers ->
        rows = Enum.reject(state.rows, fn {_, _, attributes} -> :program in attributes end)
        instruction(one(rows), registers, state)
      end)

    {inputs, instructions, for(_ <- 1..(1 + below(2)), do: register(registers))}
  end

  ## What is there before the first case

  defp stream do
    {:ok, stream} = Native.stream_new(device())
    stream
  end

  defp program do
    {:ok, program} = Native.program_new({2, [{:add, [0, 1], []}], [2]}, [], false)
    program
  end

  defp tensor(state), do: state.tensors |> Map.values() |> one() |> one()

  defp tensor(type, shape, bytes) do
    {status, ref} = Native.tensor_from_binary(device(), bytes, shape, type)
    true = status in [:ok, :collect]
    ref
  end

  defp tensors(seed) do
    :rand.seed(:exsss, seed)

    for type <- types(), into: %{} do
      {type, for(shape <- shapes(), do: tensor(type, shape, bytes(type, Enum.product(shape))))}
    end
  end

  # The rows with the kinds of their attributes, which they tell when they refuse one.
  defp rows do
    for {name, operands, attributes, _results} <- Native.op_table() do
      {name, operands, kinds(name, operands || 2, Enum.map(attributes, &{&1, :boolean}))}
    end
  end

  defp without_loops(rows), do: Enum.reject(rows, fn {name, _, _} -> name in @loops end)

  @told %{
    "a boolean" => :boolean,
    "a 32-bit integer" => :integer,
    "an integer" => :integer,
    "a number" => :number,
    "a list of 32-bit integers" => :integers,
    "an element type" => :type,
    "bytes" => :bytes,
    "a program" => :program
  }
  @samples [boolean: true, integer: 0, number: 0.5, integers: [], type: {:f, 32}, bytes: <<0>>] ++
             [program: {1, [], [0]}]

  defp kinds(name, operands, attributes) do
    inputs = for _ <- 1..operands//1, do: tensor({:f, 32}, [1], <<0::32>>)
    values = for {_, kind} <- attributes, do: @samples[kind]
    instruction = {name, Enum.to_list(0..(operands - 1)//1), values}

    # A failure is that of all outputs, be they inputs.
    with {status, [ref]} when status in [:ok, :collect] <-
           Native.stream_submit(device(), [instruction], inputs, [0]),
         {:error, %{message: message}} <- answer(&Native.tensor_read(ref, &1)),
         [_, attribute, expected] <-
           Regex.run(~r/attribute (\w+) is missing or is not (.*)$/, message),
         {:ok, kind} <- Map.fetch(@told, expected),
         true <- {attribute, kind} not in attributes do
      kinds(name, operands, List.keyreplace(attributes, attribute, 0, {attribute, kind}))
    else
      _told_enough -> for {_, kind} <- attributes, do: kind
    end
  end
end
