defmodule Mlx.Oracle do
  @moduledoc """
  Runs a function with `Nx.BinaryBackend` and with `Mlx.Backend` and compares.
  """

  import ExUnit.Assertions
  alias Mlx.TestDevice
  alias Nx.Tensor, as: T

  # The distance between one and the next number of a type.
  @epsilon %{
    {:bf, 16} => 2.0 ** -7,
    {:f, 16} => 2.0 ** -10,
    {:f, 32} => 2.0 ** -23,
    {:f, 64} => 2.0 ** -52,
    {:c, 64} => 2.0 ** -23,
    {:f, 8} => 2.0 ** -2,
    {:f8_e4m3fn, 8} => 2.0 ** -3
  }

  @doc """
  The ways in which Mlx runs a function, for `run/3`. What is held against the oracle is
  run in all of them.
  """
  def ways, do: [:eager, compiled: Mlx.Compiler]

  @doc """
  Runs a function with Mlx's tensors in one way.
  """
  def run(:eager, fun, args), do: on({Mlx.Backend, device: TestDevice.device()}, fun, args)

  def run({:compiled, compiler}, fun, args) do
    compiled = fn args ->
      {fun, tensors} = of_tensors(fun, args)
      Nx.Defn.jit(fun, compiler: compiler, device: TestDevice.device()).(tensors)
    end

    run(:eager, compiled, [args])
  end

  @doc """
  Runs a function in several ways, which all give the same, as tensors of
  `Nx.BinaryBackend`.
  """
  def run(fun, args), do: run_in(ways(), fun, args)

  @doc """
  The same in these ways.
  """
  def run_in(ways, fun, args) do
    [first | others] = for way <- ways, do: run(way, fun, args)
    {result, nil} = swap(first, nil, &{Nx.backend_copy(&1, Nx.BinaryBackend), &2})
    for got <- [first | others], do: assert_equivalent(got, result)
    result
  end

  @doc """
  Asserts that `fun` gives the same with tensors of either backend in `args`.

  ## Options

    * `:oracle` - what `Nx.BinaryBackend` runs in the place of `fun`, for results that
      it has no answer to or that only their product makes unique
    * `:ulps` - how far floats may be apart, in units of the expected one's last place
    * `:scale` - the least magnitude those units are taken of, for results that
      cancel to almost nothing
    * `:signed_zero` - whether 0.0 and -0.0 differ, `true` by default
    * `:ways` - of running it, by default all

  """
  def assert_same(fun, args, opts \\ []) do
    {oracle, opts} = Keyword.pop(opts, :oracle, fun)
    assert_gives(fun, args, on(Nx.BinaryBackend, oracle, args), opts)
  end

  @doc """
  Asserts that `fun` gives tensors equal to those expected, with the same options. Where f64 is
  among the arguments or the results, and the device lacks it, asserts that it is refused.
  """
  def assert_gives(fun, args, expected, opts \\ []) do
    {[first | others] = ways, opts} = Keyword.pop(opts, :ways, ways())

    if f64?(args, expected) and not TestDevice.f64?() do
      for way <- ways, do: TestDevice.assert_f64_refused(fn -> run(way, fun, args) end)
    else
      got = run(first, fun, args)
      assert_equivalent(got, expected, opts)
      for way <- others, do: assert_identical(run(way, fun, args), got)
    end

    :ok
  end

  defp f64?(args, expected) do
    {_, tensors} = swap(args, flatten(expected), &{&1, [&1 | &2]})
    Enum.any?(tensors, &(&1.type == {:f, 64}))
  end

  @doc """
  Asserts that containers have the same tensors, bit for bit but for the kind of NaN. On a GPU
  the kernels of a fused program round in other places, and sums add in another order each time,
  so that a few units of the last place of a tensor's largest number are allowed there.
  """
  def assert_identical(got, expected) do
    {got, expected} = {flatten(got), flatten(expected)}
    assert Enum.map(got, &described/1) == Enum.map(expected, &described/1)

    for {got, expected} <- Enum.zip(got, expected) do
      if TestDevice.device() == :gpu do
        assert_tensor(got, expected, ulps: 16, scale: largest(expected), signed_zero: false)
      else
        assert_array(got)
        assert bits(got) == bits(expected)
      end
    end

    :ok
  end

  defp largest(tensor) do
    for number <- numbers(tensor), part <- parts(number), is_number(part), reduce: 0.0 do
      largest -> max(largest, abs(part))
    end
  end

  defp parts(%Complex{re: re, im: im}), do: [re, im]
  defp parts(number), do: [number]

  defp bits(tensor) do
    for number <- numbers(tensor), do: if(is_float(number), do: <<number::float>>, else: number)
  end

  @doc """
  Asserts that a container of Mlx's tensors equals one of `Nx.BinaryBackend`.
  """
  def assert_equivalent(got, expected, opts \\ []) do
    got = flatten(got)
    expected = flatten(expected)
    assert length(got) == length(expected)
    Enum.zip_with(got, expected, &assert_tensor(&1, &2, opts))
    :ok
  end

  @doc """
  The names of the operations that `fun` is made of, and the modules of its blocks.
  """
  def operations(fun, args) do
    {fun, tensors} = of_tensors(fun, args)

    fun
    |> Nx.Defn.debug_expr_apply([tensors])
    |> flatten()
    |> Enum.reduce({MapSet.new(), MapSet.new()}, &operations_of/2)
    |> elem(0)
  end

  @doc """
  The modules of all of Nx's blocks and of `Mlx.Fast`'s.
  """
  def blocks do
    {:ok, modules} = :application.get_key(:nx, :modules)

    Enum.filter(modules, &match?(["Nx", "Block" | _], Module.split(&1))) ++
      Mlx.Lowering.Fast.blocks()
  end

  @doc """
  The same as a function of one argument, a tuple of the tensors among `args`.
  """
  def of_tensors(fun, args) do
    {_, tensors} = swap(args, [], &{&1, [&1 | &2]})

    inside = fn tensors ->
      {args, []} = swap(args, Tuple.to_list(tensors), fn _, [tensor | rest] -> {tensor, rest} end)
      fun |> apply(args) |> to_tuple()
    end

    {inside, tensors |> Enum.reverse() |> List.to_tuple()}
  end

  # What functions in definitions give are containers, of which a list is none.
  defp to_tuple(list) when is_list(list), do: List.to_tuple(list)
  defp to_tuple(other), do: other

  defp operations_of(%T{data: %{id: id, op: op, args: args}} = tensor, {names, seen} = found) do
    if id in seen do
      found
    else
      name = if op == :block, do: hd(args).__struct__, else: op
      found = {MapSet.put(names, name), MapSet.put(seen, id)}
      {_, found} = Nx.Defn.Tree.apply_args(tensor, found, &{&1, operations_of(&1, &2)})
      found
    end
  end

  defp on(backend, fun, args) do
    {args, _} = swap(args, nil, &{Nx.backend_copy(&1, backend), &2})
    Nx.with_default_backend(backend, fn -> apply(fun, args) end)
  end

  # Puts other tensors into arguments, among which are lists, maps, options and numbers.
  defp swap(%T{} = tensor, acc, fun), do: fun.(tensor, acc)
  defp swap([_ | _] = list, acc, fun), do: Enum.map_reduce(list, acc, &swap(&1, &2, fun))

  defp swap(%{} = map, acc, fun) when not is_struct(map) do
    {pairs, acc} = map |> Map.to_list() |> swap(acc, fun)
    {Map.new(pairs), acc}
  end

  defp swap(tuple, acc, fun) when is_tuple(tuple) do
    {list, acc} = tuple |> Tuple.to_list() |> swap(acc, fun)
    {List.to_tuple(list), acc}
  end

  defp swap(other, acc, _fun), do: {other, acc}

  defp flatten(container),
    do: container |> to_tuple() |> List.wrap() |> Nx.Defn.Composite.flatten_list()

  defp assert_tensor(got, expected, opts) do
    assert %Mlx.Backend{} = got.data
    assert described(got) == described(expected)
    assert_array(got)

    pairs = Enum.zip(numbers(got), numbers(expected))
    wrong = for {{a, b}, at} <- Enum.with_index(pairs), not close?(a, b, got.type, opts), do: at

    if wrong != [] do
      flunk("""
      #{Nx.Type.to_string(got.type)}#{inspect(got.shape)} differs at #{inspect(wrong)}
      expected: #{inspect(numbers(expected), limit: 100)}
      got:      #{inspect(numbers(got), limit: 100)}
      """)
    end
  end

  # What MLX holds is what Nx takes it for, or wider.
  defp assert_array(tensor) do
    plain = Nx.devectorize(tensor)
    assert Nx.Type.normalize!(Mlx.dtype(plain)) == Mlx.Lowering.Narrow.wide(tensor.type)
    assert Mlx.shape(plain) == plain.shape
  end

  defp described(%T{} = tensor) do
    Map.take(tensor, [:type, :shape, :names, :vectorized_axes])
  end

  defp numbers(tensor), do: tensor |> Nx.devectorize() |> Nx.to_flat_list()

  defp close?(%Complex{} = a, %Complex{} = b, type, opts) do
    scale = if Enum.all?([b.re, b.im], &is_number/1), do: max(abs(b.re), abs(b.im)), else: 1.0
    opts = Keyword.update(opts, :scale, scale, &max(&1, scale))
    close?(a.re, b.re, type, opts) and close?(a.im, b.im, type, opts)
  end

  defp close?(a, b, _type, opts) when a == b do
    not is_float(b) or opts[:signed_zero] == false or <<a::float>> == <<b::float>>
  end

  defp close?(a, b, type, opts) when is_float(a) and is_float(b) do
    ulps = TestDevice.ulps(opts[:ulps] || 4)
    abs(a - b) <= ulps * @epsilon[type] * max(abs(b), opts[:scale] || 0.0)
  end

  defp close?(_a, _b, _type, _opts), do: false
end
