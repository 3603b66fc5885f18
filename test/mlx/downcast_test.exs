defmodule Mlx.DowncastTest do
  # For the time of the tests every device counts as one that lacks f64.
  use ExUnit.Case, async: false
  import Mlx.Samples
  import Nx.Defn
  alias Mlx.{Backend, Dispatch, Downcast, Native, TestDevice}

  @cpu {Backend, device: :cpu}

  setup context do
    lacking = TestDevice.lacking()
    configured = Mlx.Config.get(:f64)
    Downcast.set_lacking(context[:lacking] || [:gpu, :cpu])
    Mlx.Config.keep(:f64, context[:setting] || :downcast)

    on_exit(fn ->
      Downcast.set_lacking(lacking)
      Mlx.Config.keep(:f64, configured)
    end)
  end

  defp mlx(tensor), do: Nx.backend_copy(tensor, Backend)

  defp near(numbers), do: tensor(numbers, :f64)

  defp array_type(%Nx.Tensor{} = tensor), do: Mlx.dtype(tensor)

  # The types that Nx wants, of arrays without f64, with the values of Nx.BinaryBackend
  # to the precision of f32, and the same when it is compiled.
  defp assert_downcast(fun, args, opts \\ [compiled: true]) do
    expected = fun |> apply(args) |> flat()

    got =
      Nx.with_default_backend(Backend, fn -> fun |> apply(Enum.map(args, &mlx/1)) |> flat() end)

    assert length(got) == length(expected)

    for {got, expected} <- Enum.zip(got, expected) do
      assert got.data.device == TestDevice.device()
      assert {got.type, got.shape} == {expected.type, expected.shape}
      assert array_type(got) != :f64
      binary = Nx.backend_copy(got, Nx.BinaryBackend)
      close = Nx.all_close(binary, expected, rtol: 1.0e-5, atol: 1.0e-5, equal_nan: true)
      assert Nx.to_number(close) == 1, "expected #{inspect(expected)}, got: #{inspect(binary)}"
    end

    # Programs are kept for as long as a VM runs, in which devices don't change else.
    if opts[:compiled] do
      whole = fn args -> apply(fun, Tuple.to_list(args)) end
      options = [compiler: Mlx.Compiler, cache: false]
      compiled = whole |> Nx.Defn.jit_apply([List.to_tuple(args)], options) |> flat()
      assert Enum.map(compiled, &array_type/1) == Enum.map(got, &array_type/1)
      assert Enum.map(compiled, & &1.type) == Enum.map(got, & &1.type)
      assert Enum.map(compiled, &Nx.to_binary/1) == Enum.map(got, &Nx.to_binary/1)
    end

    got
  end

  defp flat(container), do: container |> List.wrap() |> Nx.Defn.Composite.flatten_list()

  test "values are rounded on the way in and exact on the way out" do
    numbers = [0.1, -2.5, 1.0e300, -1.0e300, 1.0e-300, :nan, :infinity, 16_777_217.0]
    tensor = mlx(near(numbers))
    assert {tensor.type, array_type(tensor)} == {{:f, 64}, :f32}
    rounded = near(numbers) |> Nx.as_type(:f32) |> Nx.as_type(:f64)
    assert Nx.to_binary(tensor) == Nx.to_binary(rounded)
    assert Nx.to_binary(tensor, limit: 2) == binary_part(Nx.to_binary(rounded), 0, 16)
    assert Nx.backend_transfer(tensor) == rounded
    assert Nx.to_number(mlx(tensor(0.5, :f64))) === 0.5
    assert inspect(mlx(near([0.5, 2.0]))) == inspect(near([0.5, 2.0]))
  end

  test "a large tensor goes in and out" do
    binary = Nx.to_binary(Nx.iota({700_000}, type: :f64, backend: Nx.BinaryBackend))
    assert Nx.to_binary(Mlx.from_binary(binary, {700, 1000}, :f64)) == binary
  end

  test "a binary of another size is refused" do
    error = assert_raise Mlx.Error, fn -> Mlx.from_binary(<<0::100>>, {2}, :f64) end
    assert error.kind == :shape
  end

  test "tensors are made in it" do
    Nx.with_default_backend(Backend, fn ->
      for {tensor, numbers} <- [
            {Nx.tensor(0.5, type: :f64), [0.5]},
            {Nx.broadcast(Nx.tensor(2, type: :f64), {2}), [2.0, 2.0]},
            {Nx.iota({3}, type: :f64), [0.0, 1.0, 2.0]},
            {Nx.eye(2, type: :f64), [1.0, 0.0, 0.0, 1.0]},
            {Nx.Constants.max_finite(:f64), [:infinity]},
            {Nx.Constants.nan(:f64), [:nan]}
          ] do
        assert {tensor.type, array_type(tensor)} == {{:f, 64}, :f32}
        assert Nx.to_flat_list(tensor) == numbers
      end
    end)
  end

  # Of every family that computes with floats.
  defp operations do
    {x, y} = {sample(:f64, {3, 4}), positive(:f64)}

    [
      {&Nx.add/2, [x, sample(:f32, {3, 4})]},
      {&Nx.multiply/2, [sample(:s64, {3, 4}) |> Nx.remainder(9), x]},
      {&Nx.divide(&1, 3), [x]},
      {&Nx.log/1, [y]},
      {&Nx.pow(&1, 2.5), [y]},
      {&Nx.as_type(&1, :f64), [sample(:f16)]},
      {&Nx.as_type(&1, :s32), [x]},
      {&Nx.greater(&1, 0.5), [x]},
      {&Nx.select(&1, &2, 0.25), [sample(:u8, {3, 4}), x]},
      {&Nx.sum/1, [x]},
      {&Nx.argmax(&1, axis: 1), [x]},
      {&Nx.cumulative_sum(&1, axis: 1), [x]},
      {&Nx.window_mean(&1, {2, 2}), [x]},
      {&Nx.window_max(&1, {2, 2}), [x]},
      {&Nx.dot(&1, Nx.transpose(&1)), [x]},
      {&Nx.sort(&1, axis: 0), [x]},
      {&Nx.concatenate([&1, Nx.as_type(&1, :f16)]), [x]},
      {&Nx.pad(&1, 1.5, [{1, 0, 1}, {0, -1, 0}]), [x]},
      {&Nx.slice(&1, [&2, 1], [1, 2]), [x, tensor(1, :s64)]},
      {&Nx.take(&1, Nx.tensor([2, 0])), [x]},
      {&Nx.indexed_add(&1, Nx.tensor([[0, 1]]), Nx.tensor([0.1], type: :f64)), [x]},
      {&Nx.conv(Nx.reshape(&1, {1, 1, 3, 4}), Nx.reshape(&2, {1, 1, 2, 3})), [x, y]}
    ]
  end

  test "operations on it" do
    for {fun, args} <- operations(), do: assert_downcast(fun, args)
  end

  test "batches of it" do
    batches = &Enum.to_list(Nx.to_batched(&1, 2))
    assert_downcast(batches, [sample(:f64, {3, 4})], compiled: false)
  end

  defn controlled(x) do
    {_, doubled} =
      while {i = 0, x}, i < 3 do
        {i + 1, x * 2.0}
      end

    {_, halved} =
      while {i = 0, x}, Nx.any(x > 0.125) do
        {i + 1, x / 2}
      end

    chosen = if Nx.sum(x) > 0, do: doubled, else: halved
    chosen + Nx.runtime_call(Nx.template({4}, :f64), x, &increased/2)
  end

  def increased(x, _opts), do: Nx.add(x, 1)

  test "loops, branches and calls with it" do
    assert_downcast(&controlled/1, [near([0.5, 1.5, -0.25, 3.0])])
  end

  test "linear algebra on it" do
    a = near([[4.0, 1.0, 0.5], [1.0, 3.0, 0.25], [0.5, 0.25, 2.0]])
    b = near([1.0, 2.0, 3.0])
    rebuild = fn {q, r} -> Nx.dot(q, r) end

    for {fun, args} <- [
          {&Nx.LinAlg.cholesky/1, [a]},
          {&Nx.LinAlg.solve/2, [a, b]},
          {&Nx.LinAlg.determinant/1, [a]},
          {&Nx.LinAlg.invert/1, [a]},
          {&Nx.LinAlg.norm/1, [a]},
          {&rebuild.(Nx.LinAlg.qr(&1)), [a]},
          {&elem(Nx.LinAlg.eigh(&1), 0), [a]},
          {&elem(Nx.LinAlg.svd(&1), 1), [a]}
        ] do
      assert_downcast(fun, args)
    end

    outs = Nx.LinAlg.eigh(mlx(a))
    assert [{:f, 64}, {:f, 64}] = for(out <- Tuple.to_list(outs), do: out.type)
  end

  test "functions that fold it" do
    x = sample(:f64, {3, 4})
    half = fn a, b -> Nx.add(Nx.multiply(a, Nx.tensor(0.5, type: :f64)), b) end
    keep = fn a, b -> Nx.add(Nx.bitcast(Nx.bitcast(a, :u64), :f64), b) end

    for {fun, args} <- [
          {&Nx.reduce(&1, 0.0, half), [x]},
          {&Nx.reduce(&1, 0, [axes: [1]], fn a, b -> Nx.max(a, b) end), [x]},
          {&Nx.reduce(&1, &2, keep), [x, tensor(0.0, :f64)]},
          {&Nx.window_reduce(&1, &2, {2, 2}, fn a, b -> Nx.as_type(Nx.max(a, b), :f64) end),
           [x, tensor(0.0, :f64)]}
        ] do
      assert_downcast(fun, args)
    end

    # Nx refuses this inside definitions.
    scaled = &Nx.reduce(&1, &2, fn a, b -> Nx.add(Nx.multiply(a, &3), b) end)
    args = [sample(:f32), tensor(0.0, :f64), tensor(0.25, :f64)]
    assert_downcast(scaled, args, compiled: false)
  end

  test "its bits are those of f64" do
    x = near([0.5, -2.5, 1.0e10, -0.0])
    [bits] = assert_downcast(&Nx.bitcast(&1, :u64), [x])
    assert Nx.to_binary(bits) == Nx.to_binary(x)
    back = Nx.bitcast(mlx(Nx.bitcast(x, :s64)), :f64)
    assert {back.type, array_type(back)} == {{:f, 64}, :f32}
    assert Nx.to_binary(back) == Nx.to_binary(x)
    assert Nx.to_number(Nx.bitcast(Nx.bitcast(mlx(tensor(1.5, :f64)), :u64), :f64)) == 1.5
  end

  test "gradients and random numbers of it" do
    x = near([0.5, 1.5])
    grad = &Nx.Defn.grad(&1, fn x -> x |> Nx.sin() |> Nx.sum() end)
    assert_downcast(grad, [x])

    Nx.with_default_backend(Backend, fn ->
      {numbers, _key} = Nx.Random.uniform(Nx.Random.key(1), shape: {50}, type: :f64)
      assert {numbers.type, array_type(numbers)} == {{:f, 64}, :f32}
      assert Enum.all?(Nx.to_flat_list(numbers), &(&1 >= 0 and &1 <= 1))
    end)
  end

  test "copies keep it" do
    tensor = mlx(near([0.1, 0.2]))
    copy = Nx.backend_copy(tensor, Backend)
    Nx.backend_deallocate(tensor)
    assert array_type(copy) == :f32
    assert Nx.to_flat_list(copy) == Nx.to_flat_list(Nx.as_type(tensor([0.1, 0.2], :f32), :f64))
  end

  test "pointers have its bytes" do
    tensor = mlx(near([0.5, -2.5]))
    pointer = Nx.to_pointer(tensor, mode: :ipc)
    assert pointer.data_size == 16
    copy = Nx.from_pointer(Backend, pointer, :f64, {2})
    assert array_type(copy) == :f32
    assert Nx.to_binary(copy) == Nx.to_binary(tensor)
    error = assert_raise Mlx.Error, fn -> Nx.to_pointer(tensor) end
    assert error.kind == :unsupported
  end

  # A tensor that says it is on the GPU, with an array that a GPU would have.
  defp on_gpu(tensor) do
    array = tensor |> Nx.as_type(:f32) |> Nx.backend_copy(@cpu)
    %{tensor | data: %Backend{ref: array.data.ref, device: :gpu}}
  end

  @tag lacking: [:gpu]
  test "a tensor that moves to a device with f64 becomes one" do
    moved = Nx.backend_copy(on_gpu(near([0.1, -2.5])), @cpu)
    assert {moved.type, array_type(moved)} == {{:f, 64}, :f64}
    assert Nx.to_flat_list(moved) == Nx.to_flat_list(Nx.as_type(tensor([0.1, -2.5], :f32), :f64))
  end

  @tag lacking: [:gpu]
  test "a tensor that moves to a device without f64 is rounded" do
    native = Nx.backend_copy(near([0.1, 1.0e300]), @cpu)
    assert array_type(native) == :f64
    array = %{native | type: {:f, 32}, data: %{native.data | ref: Dispatch.across(native, :gpu)}}
    assert array_type(array) == :f32
    assert Nx.to_flat_list(array) == Nx.to_flat_list(Nx.as_type(near([0.1, 1.0e300]), :f32))
  end

  @tag lacking: [:gpu]
  test "where f64 is there, nothing changes" do
    tensor = Nx.backend_copy(near([0.1, 1.0e300]), @cpu)
    assert array_type(tensor) == :f64
    assert Nx.to_binary(tensor) == Nx.to_binary(near([0.1, 1.0e300]))
    assert array_type(Nx.add(tensor, 1)) == :f64
  end

  @tag setting: :error
  test "unless it is asked for, f64 raises with the ways out" do
    refused = [
      fn -> mlx(near([1.0])) end,
      fn -> Nx.iota({2}, type: :f64, backend: Backend) end,
      fn -> Nx.as_type(mlx(tensor([1], :s32)), :f64) end,
      fn -> Nx.add(mlx(tensor([1], :s32)), near([1.0])) end
    ]

    compiled =
      for {fun, args} <-
            operations() ++ [{&Nx.LinAlg.solve/2, [sample(:f64, {3, 3}), near([1.0, 2.0, 3.0])]}] do
        whole = fn args -> apply(fun, Tuple.to_list(args)) end

        fn ->
          Nx.Defn.jit_apply(whole, [List.to_tuple(args)], compiler: Mlx.Compiler, cache: false)
        end
      end

    for fun <- refused ++ compiled do
      error = assert_raise Mlx.Error, fun
      assert error.kind == :type

      for way <- ["Nx.as_type/2", "device: :cpu", "f64: :downcast"],
          do: assert(error.message =~ way)
    end
  end

  test "the arrays are of f32 to the engine as well" do
    %{data: %{ref: ref}} = Nx.add(mlx(near([1.0])), 1)
    tag = make_ref()
    {:ok, :pending} = Native.tensor_signature(ref, tag)
    assert_receive {^tag, {:ok, {"f32", [1]}}}
  end
end
