defmodule Mlx.ReloadTest do
  # Each case treats the module of a VM of its own as a developer might.
  use ExUnit.Case, async: true
  import Mlx.OwnVm

  @object """
  {module, code, file} = :code.get_object_code(Mlx.Native)
  work = fn -> 12.0 = Nx.to_number(Nx.sum(Nx.add(Nx.iota({4}), 1.5))) end
  """

  test "a second load is refused in words, and changes nothing" do
    {output, 0} =
      run(
        @object <>
          """
          tensor = Nx.iota({4})
          for _ <- 1..3 do
            {:error, :on_load_failure} = :code.load_binary(module, file, code)
            work.()
            [1, 2, 3, 4] = Nx.to_list(Nx.add(tensor, 1))
            false = :code.purge(Mlx.Native)
          end
          Logger.flush()
          alive.()
          """
      )

    assert output =~ "Upgrade not supported by this NIF library"
    assert output =~ "alive"
  end

  test "a second load with work in flight is refused" do
    assert_alive(
      @object <>
        """
        m = Nx.eye(300) |> Nx.as_type(:f32)
        product = Enum.reduce(1..50, m, fn _, x -> Nx.dot(x, m) end)
        {:error, :on_load_failure} = :code.load_binary(module, file, code)
        300.0 = Nx.to_number(Nx.sum(product))
        """
    )
  end

  test "a module that was deleted and purged is loaded again, without the tensors it made" do
    assert_alive(
      @object <>
        """
        tensor = Nx.iota({4})
        binary = Nx.to_binary(Nx.iota({100_000}))
        forget = fn ->
          :code.purge(Mlx.Native)
          true = :code.delete(Mlx.Native)
          :code.purge(Mlx.Native)
        end

        for _ <- 1..5 do
          forget.()
          work.()
        end

        :device = refused.(fn -> Nx.to_list(tensor) end)

        400_000 = byte_size(binary)
        <<0::32-native, 1::32-native, _::binary>> = binary
        """
    )
  end

  test "a purge with work in flight leaves the workers their code" do
    assert_alive(
      @object <>
        """
        spawn(fn ->
          m = Nx.eye(500) |> Nx.as_type(:f32)
          for _ <- 1..50, reduce: m, do: (x -> Mlx.async_eval(Nx.dot(x, m)))
        end)

        Process.sleep(50)
        :code.delete(Mlx.Native)
        :code.purge(Mlx.Native)
        for pid <- Process.list(), do: :erlang.garbage_collect(pid)
        Process.sleep(200)
        work.()
        """
    )
  end
end
