defmodule Mlx.BackendTest do
  use ExUnit.Case, async: true
  import Mlx.Oracle
  import Mlx.Samples
  alias Mlx.Backend

  doctest Mlx.Backend

  describe "init" do
    test "names the device" do
      assert Backend.init([]) == [device: Mlx.Device.default()]
      assert Backend.init(device: :cpu) == [device: :cpu]
      assert Backend.init(device: nil) == [device: Mlx.Device.default()]
    end

    test "refuses unknown options and devices" do
      assert_raise ArgumentError, ~r/unknown keys \[:devise\]/, fn ->
        Backend.init(devise: :cpu)
      end

      assert_raise ArgumentError, fn -> Nx.default_backend({Backend, client: :host}) end
      error = assert_raise Mlx.Error, fn -> Nx.default_backend({Backend, device: :tpu}) end
      assert error.kind == :device
    end

    if Mlx.Device.available() == [:cpu] do
      test "refuses the GPU where there is none" do
        assert_no_device(fn -> Nx.default_backend({Backend, device: :gpu}) end)
        assert_no_device(fn -> Nx.tensor(1, backend: {Backend, device: :gpu}) end)
        assert_no_device(fn -> Nx.iota({2}, backend: {Backend, device: :gpu}) end)
        assert_no_device(fn -> Nx.backend_transfer(mlx(1), {Backend, device: :gpu}) end)
      end
    end

    test "refuses unknown devices in the options of a function" do
      assert_no_device(fn -> Nx.tensor(1, backend: {Backend, device: :tpu}) end)
      assert_no_device(fn -> Nx.iota({2}, backend: {Backend, device: :tpu}) end)
      assert_no_device(fn -> Nx.backend_transfer(mlx(1), {Backend, device: :tpu}) end)
    end

    test "as the default backend of a process it makes all tensors" do
      Nx.with_default_backend(Backend, fn ->
        for tensor <- [Nx.tensor(1), Nx.tensor([1, 2]), Nx.iota({2}), Nx.eye(2), Nx.u8([1])] do
          assert tensor.data.device == Mlx.TestDevice.device()
        end

        assert %Backend{} = Nx.from_binary(<<1, 2>>, :u8).data
      end)
    end
  end

  describe "to_binary" do
    test "with a limit gives the first elements" do
      for type <- device_types(), limit <- [0, 1, 2, 14, 15, 100] do
        assert_binaries(sample(type), &Nx.to_binary(&1, limit: limit))
      end
    end

    test "with a limit of a view" do
      assert_binaries(sample(:s32), &Nx.to_binary(Nx.transpose(&1), limit: 4))
      assert_binaries(sample(:s32), &Nx.to_binary(Nx.reverse(&1), limit: 4))
      assert_binaries(tensor(7, :s32), &Nx.to_binary(&1, limit: 1))
    end

    test "with a limit of a vectorized tensor counts all its elements" do
      for limit <- [2, 4, 6, 20] do
        vectorized = Nx.vectorize(sample(:s32, {3, 5}), :rows)
        assert_binaries(vectorized, &Nx.to_binary(&1, limit: limit))
      end
    end

    test "of views is in row order" do
      assert_binaries(sample(:s16, {3, 4, 5}), &Nx.to_binary(Nx.transpose(&1, axes: [1, 2, 0])))
      assert_binaries(sample(:u8), &Nx.to_binary(Nx.slice(&1, [0, 1], [3, 4], strides: [2, 2])))
      assert_binaries(tensor(3, :u8), &Nx.to_binary(Nx.broadcast(&1, {2000})))
    end

    test "and all that reads with it" do
      assert Nx.to_number(mlx(2.5)) == 2.5
      assert Nx.to_list(mlx([[1, 2], [3, 4]])) == [[1, 2], [3, 4]]
      assert Nx.to_flat_list(mlx([[1, 2], [3, 4]])) == [1, 2, 3, 4]
    end
  end

  describe "inspect" do
    test "prints what Nx.BinaryBackend prints" do
      for type <- device_types(), opts <- [[], [limit: 4], [limit: :infinity]] do
        assert inspect(mlx(sample(type)), opts) == inspect(sample(type), opts)
      end

      for tensor <- [specials(:f32), tensor(1, :u8), sample(:s8, {2, 3}, names: [:x, nil])] do
        assert inspect(mlx(tensor)) == inspect(tensor)
      end

      vectorized = Nx.vectorize(sample(:s32, {2, 3, 2}), [:a, :b])
      assert inspect(mlx(vectorized)) == inspect(vectorized)
    end
  end

  describe "to_batched" do
    for leftover <- [:repeat, :discard],
        {rows, size} <- [{6, 2}, {7, 3}, {5, 5}, {4, 3}, {3, 1}] do
      test "of #{rows} rows by #{size}, leftover: #{leftover}" do
        batches = &Enum.to_list(Nx.to_batched(&1, unquote(size), leftover: unquote(leftover)))
        # There is no such thing in a definition.
        options = [ways: [:eager]]
        assert_same(batches, [sample(:s32, {unquote(rows), 3}, names: [:x, :y])], options)
        assert_same(batches, [sample(:f32, {unquote(rows)})], options)
      end
    end

    test "is lazy" do
      [first] = mlx(sample(:s32, {1000, 3})) |> Nx.to_batched(2) |> Enum.take(1)
      assert_equivalent(first, sample(:s32, {1000, 3})[0..1])
    end

    test "can be enumerated again" do
      batches = Nx.to_batched(mlx(sample(:s32, {7, 3})), 3)
      assert_equivalent(Enum.to_list(batches), Enum.to_list(batches) |> Enum.map(&binary/1))
    end
  end

  describe "backend_copy" do
    test "makes a tensor of its own" do
      for type <- device_types() do
        tensor = mlx(sample(type))
        copy = Nx.backend_copy(tensor, Backend)
        assert Nx.backend_deallocate(tensor) == :ok
        assert_equivalent(copy, sample(type))
      end
    end

    test "to and from Nx.BinaryBackend" do
      tensor = mlx(sample(:f32))
      assert %Nx.BinaryBackend{} = Nx.backend_copy(tensor).data
      assert Nx.backend_copy(tensor) == sample(:f32)
      assert_equivalent(tensor, sample(:f32))
    end
  end

  describe "backend_transfer" do
    test "to the same place changes nothing" do
      tensor = mlx(sample(:f32))
      assert Nx.backend_transfer(tensor, Backend) === tensor
    end

    test "to another backend deallocates" do
      tensor = mlx(sample(:f32))
      assert Nx.backend_transfer(tensor) == sample(:f32)
      assert_raise Mlx.Error, "the tensor was deallocated", fn -> Nx.to_binary(tensor) end
    end

    test "of a container" do
      %{a: a, b: {b}} = Nx.backend_transfer(%{a: sample(:u8), b: {sample(:c64)}}, Backend)
      assert_equivalent({a, b}, {sample(:u8), sample(:c64)})
    end
  end

  describe "backend_deallocate" do
    test "says whether there was something to let go of" do
      tensor = mlx(sample(:f32))
      assert Nx.backend_deallocate(tensor) == :ok
      assert Nx.backend_deallocate(tensor) == :already_deallocated
    end

    test "makes each use of the tensor raise" do
      tensor = mlx(sample(:f32))
      Nx.backend_deallocate(tensor)

      uses = [
        &Nx.to_binary/1,
        &Nx.to_binary(&1, limit: 2),
        &Nx.add(&1, 1),
        &Nx.concatenate([mlx([[1.0, 1.0, 1.0, 1.0, 1.0]]), &1]),
        &Nx.backend_copy(&1, Backend),
        &Nx.backend_transfer/1,
        &Mlx.eval/1,
        &Mlx.async_eval/1,
        &Mlx.shape/1
      ]

      for use <- uses do
        assert_raise Mlx.Error, "the tensor was deallocated", fn -> use.(tensor) end
      end
    end

    test "leaves what was computed from the tensor" do
      tensor = mlx(sample(:f32))
      {sum, view} = {Nx.add(tensor, 1), Nx.reshape(tensor, {15})}
      Nx.backend_deallocate(tensor)
      assert_equivalent(sum, Nx.add(sample(:f32), 1))
      assert_equivalent(view, sample(:f32, {15}))
    end
  end

  defp device_types, do: Mlx.TestDevice.types(types())

  defp mlx(%Nx.Tensor{} = tensor), do: Nx.backend_copy(tensor, Backend)
  defp mlx(numbers), do: Nx.tensor(numbers, backend: Backend)

  defp binary(tensor), do: Nx.backend_copy(tensor, Nx.BinaryBackend)

  defp assert_no_device(fun) do
    error = assert_raise Mlx.Error, fun
    assert error.kind == :device
    assert error.message =~ ~r/there is no .*[gt]pu.*; available: /
  end

  defp assert_binaries(tensor, fun), do: assert(fun.(mlx(tensor)) == fun.(tensor))
end

defmodule Mlx.BackendInspectTest do
  # Compiles the backend once more, because the switch is one of compile time.
  use ExUnit.Case, async: false

  setup do
    Application.put_env(:mlx, :add_backend_on_inspect, true)
    Code.put_compiler_option(:ignore_module_conflict, true)
    Code.compile_file("lib/mlx/backend.ex")

    on_exit(fn ->
      Application.put_env(:mlx, :add_backend_on_inspect, false)
      Code.put_compiler_option(:ignore_module_conflict, false)
      :code.purge(Mlx.Backend)
      :code.load_file(Mlx.Backend)
    end)
  end

  test "a tensor names its backend and its device" do
    tensor = Nx.tensor([[1, 2]], names: [:x, nil], backend: Mlx.Backend)

    assert inspect(tensor) == """
           #Nx.Tensor<
             s32[x: 1][2]
             Mlx.Backend<#{Mlx.TestDevice.device()}>
             [
               [1, 2]
             ]
           >\
           """
  end
end
