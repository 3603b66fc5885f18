defmodule Mlx.Oracle do
  @moduledoc """
  Runs a function with `Nx.BinaryBackend` and with `Mlx.Backend` and compares.
  """

  import ExUnit.Assertions
  alias Nx.Tensor, as: T

  # The distance between one and the next number of a type.
  @epsilon %{
    {:bf, 16} => 2.0 ** -7,
    {:f, 16} => 2.0 ** -10,
    {:f, 32} => 2.0 ** -23,
    {:f, 64} => 2.0 ** -52,
    {:c, 64} => 2.0 ** -23
  }

  @doc """
  Asserts that `fun` gives the same with tensors of either backend in `args`.

  ## Options

    * `:ulps` - how far floats may be apart, in units of the expected one's last place
    * `:scale` - the least magnitude those units are taken of, for results that
      cancel to almost nothing
    * `:signed_zero` - whether 0.0 and -0.0 differ, `true` by default
    * `:compiled` - whether the function is also compiled, which has to give the same
      bits; `true` by default, `false` for what Nx refuses inside definitions

  """
  def assert_same(fun, args, opts \\ []) do
    expected = on(Nx.BinaryBackend, fun, args)
    got = on({Mlx.Backend, device: :cpu}, fun, args)
    assert_equivalent(got, expected, opts)
    if Keyword.get(opts, :compiled, true), do: assert_identical(compiled(fun, args), got)
  end

  @doc """
  What `fun` gives when it is compiled with the tensors in `args` as parameters.
  """
  def compiled(fun, args, opts \\ []) do
    {_, tensors} = swap(args, [], &{&1, [&1 | &2]})

    inside = fn tensors ->
      {args, []} = swap(args, Tuple.to_list(tensors), fn _, [tensor | rest] -> {tensor, rest} end)
      fun |> apply(args) |> to_tuple()
    end

    opts = Keyword.merge([compiler: Mlx.Compiler, device: :cpu], opts)
    tensors = tensors |> Enum.reverse() |> List.to_tuple()
    Nx.Defn.jit_apply(inside, [tensors], opts)
  end

  # Functions that are compiled give containers, of which a list is none.
  defp to_tuple(list) when is_list(list), do: List.to_tuple(list)
  defp to_tuple(other), do: other

  @doc """
  Asserts that containers have the same tensors, bit for bit but for the kind of NaN.
  """
  def assert_identical(got, expected) do
    got = flatten(to_tuple(got))
    expected = flatten(to_tuple(expected))
    assert Enum.map(got, &described/1) == Enum.map(expected, &described/1)

    for {got, expected} <- Enum.zip(got, expected) do
      assert_array(got)
      assert bits(got) == bits(expected)
    end

    :ok
  end

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
  The names of the operations that `fun` is made of.
  """
  def operations(fun, args) do
    {_, tensors} = swap(args, [], &{&1, [&1 | &2]})

    inside = fn tensors ->
      {args, []} = swap(args, Tuple.to_list(tensors), fn _, [tensor | rest] -> {tensor, rest} end)
      apply(fun, args)
    end

    inside
    |> Nx.Defn.debug_expr_apply([tensors |> Enum.reverse() |> List.to_tuple()])
    |> flatten()
    |> Enum.reduce(MapSet.new(), &operations_of/2)
  end

  defp operations_of(%T{data: %{op: op}} = tensor, names) do
    {_, names} =
      Nx.Defn.Tree.apply_args(tensor, MapSet.put(names, op), &{&1, operations_of(&1, &2)})

    names
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

  defp flatten(container), do: container |> List.wrap() |> Nx.Defn.Composite.flatten_list()

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

  # What MLX holds is what Nx takes it for.
  defp assert_array(tensor) do
    plain = Nx.devectorize(tensor)
    assert Nx.Type.normalize!(Mlx.dtype(plain)) == tensor.type
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
    abs(a - b) <= (opts[:ulps] || 4) * @epsilon[type] * max(abs(b), opts[:scale] || 0.0)
  end

  defp close?(_a, _b, _type, _opts), do: false
end
